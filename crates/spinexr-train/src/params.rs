//! A module's float tensors by name: reading, collecting gradients, writing back.
//!
//! Optimiser state, averages and checkpoints are keyed by the PyTorch-style names of a state dict, never by
//! the engine's `ParamId`, which is random and would not survive a restart. Tensors are handled flat,
//! `[numel]` and outside autodiff, so that one type serves parameters of every rank.

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use spinexr_models::weights;
use std::collections::BTreeMap;

/// One float tensor of a module.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// Values in row-major order, `[numel]`, outside autodiff.
    pub flat: Tensor<1>,
    /// Shape in the module.
    pub shape: Vec<usize>,
    /// The module's tensor requires a gradient: a parameter that is not frozen. Running statistics and
    /// every tensor of a module in validation mode say no.
    pub trainable: bool,
}

/// Every float tensor of `module` by name, running statistics included.
pub fn named_tensors<M: Module>(module: &M) -> BTreeMap<String, NamedTensor> {
    struct Reader {
        names: Names,
        found: BTreeMap<String, NamedTensor>,
    }
    impl ModuleVisitor for Reader {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let trainable = param.is_require_grad();
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            let entry = NamedTensor { flat: flatten(tensor.inner()), shape, trainable };
            self.found.insert(next_name(&mut self.names), entry);
        }
    }
    let mut reader = Reader { names: names(module), found: BTreeMap::new() };
    module.visit(&mut reader);
    reader.found
}

/// Takes the gradient of every trainable parameter of `module` out of `gradients`, flat, by name.
///
/// Parameters the loss does not depend on are absent.
pub fn take_gradients<M: Module>(module: &M, gradients: &mut Gradients) -> BTreeMap<String, Tensor<1>> {
    struct Taker<'a> {
        names: Names,
        gradients: &'a mut Gradients,
        found: BTreeMap<String, Tensor<1>>,
    }
    impl ModuleVisitor for Taker<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = next_name(&mut self.names);
            if !param.is_require_grad() {
                return;
            }
            if let Some(gradient) = param.val().grad_remove(self.gradients) {
                self.found.insert(name, flatten(gradient));
            }
        }
    }
    let mut taker = Taker { names: names(module), gradients, found: BTreeMap::new() };
    module.visit(&mut taker);
    taker.found
}

/// Rewrites the tensors of `module`: `update` gets each float tensor's name, flat value and trainability,
/// and returns the new flat value of the same length. Gradient requirements stay as they were.
///
/// The value handed over is its only reference when the module is its only owner, so an engine may compute
/// in place.
pub fn update_tensors<M: Module>(module: M, update: impl FnMut(&str, Tensor<1>, bool) -> Tensor<1>) -> M {
    struct Writer<F> {
        names: Names,
        update: F,
    }
    impl<F: FnMut(&str, Tensor<1>, bool) -> Tensor<1>> ModuleMapper for Writer<F> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = next_name(&mut self.names);
            let (id, tensor, mapper) = param.consume();
            let trainable = tensor.is_require_grad();
            let autodiff = tensor.is_autodiff();
            let dims: [usize; D] = tensor.dims();
            let new: Tensor<D> = (self.update)(&name, flatten(tensor.inner()), trainable).reshape(dims);
            let new = if autodiff { Tensor::from_inner(new) } else { new };
            let new = if trainable { new.require_grad() } else { new };
            Param::from_mapped_value(id, new, mapper)
        }
    }
    let names = names(&module);
    module.map(&mut Writer { names, update })
}

/// Stops the training of everything under one of `prefixes`, see [`has_prefix`]: parameters keep their
/// values, and normalisations there use their running statistics and no longer move them.
pub fn freeze<M: Module>(module: M, prefixes: &[String]) -> M {
    struct Freezer<'a> {
        names: Names,
        /// The tensor met last: a layer's flag follows its tensors.
        last: String,
        prefixes: &'a [String],
    }
    impl Freezer<'_> {
        fn fits(&self, name: &str) -> bool {
            self.prefixes.iter().any(|p| has_prefix(name, p))
        }
    }
    impl ModuleMapper for Freezer<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.last = next_name(&mut self.names);
            if self.fits(&self.last) { param.set_require_grad(false) } else { param }
        }
        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            let layer = self.last.rsplit_once('.').map_or("", |(layer, _)| layer);
            if self.fits(layer) { flag.with_value(false) } else { flag }
        }
    }
    if prefixes.is_empty() {
        return module;
    }
    let names = names(&module);
    module.map(&mut Freezer { names, last: String::new(), prefixes })
}

/// `name` is `prefix` or lies below it: `features.conv0` is a prefix of `features.conv0.weight` and not of
/// `features.conv01.weight`.
pub fn has_prefix(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || prefix.ends_with('.'))
}

type Names = std::vec::IntoIter<String>;

// Visitors and mappers meet the tensors of a module in one order, so names go by position.
fn names<M: Module>(module: &M) -> Names {
    let names: Vec<String> = weights::named_tensors(module).into_iter().map(|t| t.name).collect();
    names.into_iter()
}

fn next_name(names: &mut Names) -> String {
    names.next().expect("a module shows the same tensors to every visitor")
}

fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let numel = tensor.dims().iter().product::<usize>();
    tensor.reshape([numel])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_dots() {
        assert!(has_prefix("features.conv0.weight", "features.conv0"));
        assert!(has_prefix("features.conv0.weight", "features."));
        assert!(has_prefix("features.conv0.weight", "features.conv0.weight"));
        assert!(!has_prefix("features.conv01.weight", "features.conv0"));
        assert!(!has_prefix("features", "features.conv0"));
    }
}
