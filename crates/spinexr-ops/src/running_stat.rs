//! A buffer that a layer updates while it runs (the running statistics of a norm).

use std::sync::{Mutex, PoisonError};

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId,
};
use burn::tensor::{Device, Tensor};

/// A vector that a forward pass may update through a shared reference.
///
/// Unlike the engine's `RunningState` it always holds the latest value, so that a state dict taken
/// right after a step is complete, and a clone is independent: training the clone leaves the original
/// as it is. It is visited and mapped as a float parameter without gradient.
#[derive(Debug)]
pub struct RunningStat {
    id: ParamId,
    value: Mutex<Tensor<1>>,
}

impl RunningStat {
    /// Buffer that starts at `value`.
    ///
    /// # Shapes
    /// - `value`: `[C]`
    pub fn new(value: Tensor<1>) -> Self {
        Self::with_id(ParamId::new(), value)
    }

    fn with_id(id: ParamId, value: Tensor<1>) -> Self {
        Self { id, value: Mutex::new(value) }
    }

    /// The latest value, `[C]`.
    pub fn value(&self) -> Tensor<1> {
        // A panic while the lock is held leaves the old or the new value, both whole.
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replace the value.
    ///
    /// # Shapes
    /// - `value`: `[C]`, as before
    ///
    /// # Panics
    /// When the length changes.
    pub fn set(&self, value: Tensor<1>) {
        let mut guard = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(guard.dims(), value.dims(), "a running statistic keeps its length");
        *guard = value;
    }
}

impl Clone for RunningStat {
    fn clone(&self) -> Self {
        Self::with_id(self.id, self.value())
    }
}

impl Module for RunningStat {
    fn collect_devices(&self, mut devices: Vec<Device>) -> Vec<Device> {
        let device = self.value().device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn to_device(self, device: &Device) -> Self {
        Self::with_id(self.id, self.value().to_device(device))
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&Param::initialized(self.id, self.value()));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let param = mapper.map_float(Param::initialized(self.id, self.value()));
        let (id, value, _) = param.consume();
        // A mapper may have asked for a gradient on every float it met: a buffer has none.
        Self::with_id(id, value.set_require_grad(false))
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        Self::with_id(self.id, self.value().without_autodiff())
    }

    fn train(self) -> Self {
        Self::with_id(self.id, self.value().autodiff())
    }
}

impl ModuleDisplayDefault for RunningStat {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&"RunningStat".to_string()).optional()
    }
}

impl ModuleDisplay for RunningStat {}
