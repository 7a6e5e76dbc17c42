//! A Sparse R-CNN prepared for the CPU: backbone and pyramid, nearly all of the work, without tensors; the stages are the
//! module's.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use spinexr_ops::inference::Maps;

use super::{SparseRcnn, SparseRcnnOutput};
use crate::detector::{Detect, DetectConfig, NotFinite, RawDetection};
use crate::resnet_inference::{FpnBuffers, FpnInference, ResNetBuffers, ResNetInference};
use crate::retinanet::padded_input;

/// A Sparse R-CNN that is only run.
#[derive(Debug)]
pub struct SparseRcnnInference {
    body: ResNetInference,
    fpn: FpnInference,
    /// For its stages.
    network: SparseRcnn,
    /// Buffers of calls that have ended; a call takes one, or makes its own.
    spare: Mutex<Vec<(ResNetBuffers, FpnBuffers)>>,
}

impl SparseRcnnInference {
    /// The network with the weights and running statistics it has now.
    pub fn new(network: SparseRcnn) -> Self {
        Self {
            body: ResNetInference::new(&network.backbone.body),
            fpn: FpnInference::new(&network.backbone.fpn),
            network,
            spare: Mutex::new(Vec::new()),
        }
    }

    /// As [`SparseRcnn::forward`].
    ///
    /// # Panics
    /// When there is not one size for each image.
    pub fn forward(&self, x: Tensor<4>, content_px: &[(f32, f32)]) -> SparseRcnnOutput {
        let device = x.device();
        let x = padded_input(x);
        let shape = x.dims();
        let x = x.try_into_vec_as::<f32>().expect("images are float tensors that can be read back");
        let x = Maps::new(x, shape);

        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = spare().pop().unwrap_or_default();
        let (body, fpn) = &mut buffers;
        // On a thread of the pool the many small tasks need no waking of another.
        rayon::scope(|_| {
            self.body.run(&x, body);
            self.fpn.run(&body.stages, fpn);
        });
        let tensor =
            |map: &Maps| Tensor::from_data(TensorData::new(map.values().to_vec(), map.shape()), &device);
        let maps: Vec<Tensor<4>> = fpn.levels.iter().map(tensor).collect();
        spare().push(buffers);
        rayon::scope(|_| self.network.refine(&maps, content_px))
    }
}

impl Detect for SparseRcnnInference {
    fn detect(
        &self,
        images: Tensor<4>,
        content_px: &[(f32, f32)],
        config: &DetectConfig,
    ) -> Vec<Result<Vec<RawDetection>, NotFinite>> {
        self.forward(images, content_px).detect(config)
    }
}
