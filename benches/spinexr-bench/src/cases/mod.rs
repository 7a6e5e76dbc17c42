//! The cases by name. `benches/peers/peers.py` has the same ones.

mod evaluation;
mod networks;
mod prepare;

use crate::measure::Plan;
use crate::sizes::Sizes;
use anyhow::Result;
use clap::ValueEnum;
use std::fmt;
use std::path::Path;

/// What can be timed in a process of its own. A cold start is the program itself and is timed from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// DenseNet-121, one image
    Densenet121InferB1,
    /// DenseNet-121, a batch
    Densenet121InferB8,
    /// DenseNet-121, forward and backward of a batch
    Densenet121StepB8,
    /// RetinaNet-R50-FPN, one image to boxes
    RetinanetR50Infer,
    /// RetinaNet-R50-FPN, forward, loss and backward of one image
    RetinanetR50Step,
    /// Sparse R-CNN-R50-FPN, one image to boxes
    SparseRcnnR50Infer,
    /// Sparse R-CNN-R50-FPN, forward, losses of all stages and backward of one image
    SparseRcnnR50Step,
    /// DICOM films to what training reads
    Prepare,
    /// COCO average precision of a test set
    CocoEval,
    /// Bootstrap of the AUROC of a test set
    Bootstrap,
}

impl Case {
    /// Seconds of each run that counts, and what was computed.
    pub fn run(self, inputs: &Path, sizes: &Sizes, plan: &Plan) -> Result<(Vec<f64>, f64)> {
        match self {
            Self::Densenet121InferB1 => networks::densenet121_infer(inputs, 1, plan),
            Self::Densenet121InferB8 => networks::densenet121_infer(inputs, sizes.batch, plan),
            Self::Densenet121StepB8 => networks::densenet121_step(inputs, plan),
            Self::RetinanetR50Infer => networks::retinanet_infer(inputs, plan),
            Self::RetinanetR50Step => networks::retinanet_step(inputs, plan),
            Self::SparseRcnnR50Infer => networks::sparse_rcnn_infer(inputs, sizes, plan),
            Self::SparseRcnnR50Step => networks::sparse_rcnn_step(inputs, sizes, plan),
            Self::Prepare => prepare::prepare(inputs, sizes, plan),
            Self::CocoEval => evaluation::coco_eval(inputs, plan),
            Self::Bootstrap => evaluation::bootstrap(inputs, sizes, plan),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no case is hidden");
        f.write_str(value.get_name())
    }
}
