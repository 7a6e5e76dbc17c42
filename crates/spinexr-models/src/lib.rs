//! DenseNet, ResNet, FPN, RetinaNet and their losses
