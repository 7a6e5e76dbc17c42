//! DenseNet, ResNet, FPN, RetinaNet, their losses and their weights.
//!
//! One paper a file. A network is a configuration of plain fields with named constructors for the published
//! ones, `init_seeded` gives the module, and `forward`, `loss` and `detect` are separate functions. Module
//! paths are PyTorch's state-dict names, so that [`weights`] can read torchvision's files and the golden tests
//! can fill a network by name.
//!
//! `*_inference` are the same networks prepared for the CPU, where they are only run.
//!
//! Shape letters: N images, C channels, H and W pixels, A anchors, K classes.

pub mod anchors;
pub mod architecture;
pub mod assignment;
pub mod box_coder;
pub mod densenet;
pub mod densenet_inference;
pub mod detector;
pub mod efficientdet;
pub mod efficientnet;
mod efficientnet_inference;
pub mod explain;
pub mod faster_rcnn;
pub mod fpn;
pub mod giou;
pub mod init;
pub mod layer_norm;
pub mod linear;
pub mod losses;
pub mod matcher;
pub mod normalisation;
pub mod onnx;
pub mod resnet;
mod resnet_inference;
pub mod retinanet;
pub mod retinanet_detect;
pub mod retinanet_head;
pub mod retinanet_inference;
pub mod retinanet_loss;
pub mod roi_pooler;
pub mod sparse_rcnn;
mod suppression;
pub mod weights;

pub use architecture::{Architecture, Task};
pub use densenet::{DenseNet, DenseNetConfig};
pub use densenet_inference::DenseNetInference;
pub use detector::{Detect, DetectConfig, Detector, DetectorConfig, NotFinite, RawDetection, Target};
pub use efficientdet::inference::EfficientDetInference;
pub use efficientdet::{EfficientDet, EfficientDetConfig, EfficientDetOutput};
pub use faster_rcnn::{FasterRcnn, FasterRcnnConfig, FasterRcnnInference};
pub use normalisation::Normalisation;
pub use retinanet::{RetinaNet, RetinaNetConfig, RetinaNetOutput};
pub use retinanet_inference::RetinaNetInference;
pub use sparse_rcnn::inference::SparseRcnnInference;
pub use sparse_rcnn::{SparseRcnn, SparseRcnnConfig, SparseRcnnOutput};
