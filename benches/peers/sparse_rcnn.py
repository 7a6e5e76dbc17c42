"""Sparse R-CNN (arXiv 2011.12450) for one image, out of PyTorch's and torchvision's parts, under spinexr's weight names."""

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align
from torchvision.ops import generalized_box_iou, generalized_box_iou_loss, sigmoid_focal_loss

PROPOSALS, HIDDEN, HEADS, FEEDFORWARD, DYNAMIC, BINS = 100, 256, 8, 2048, 64, 7
CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0
MAX_LOG_SCALE = 8.740336742730447  # ln(100000 / 16)


class TowerLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.norm = nn.LayerNorm(HIDDEN)

    def forward(self, x):
        return F.relu(self.norm(self.linear(x)))


class Interaction(nn.Module):
    def __init__(self):
        super().__init__()
        self.dynamic_layer = nn.Linear(HIDDEN, 2 * HIDDEN * DYNAMIC)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(DYNAMIC), nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.out_layer = nn.Linear(HIDDEN * BINS * BINS, HIDDEN)

    def forward(self, features, pooled):
        first, second = self.dynamic_layer(features).chunk(2, dim=1)
        x = pooled.flatten(2).transpose(1, 2)  # [P, bins, hidden]
        x = F.relu(self.norm1(x @ first.view(-1, HIDDEN, DYNAMIC)))
        x = F.relu(self.norm2(x @ second.view(-1, DYNAMIC, HIDDEN)))
        return F.relu(self.norm3(self.out_layer(x.flatten(1))))


class Stage(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(HIDDEN, HEADS, batch_first=True)
        self.inst_interact = Interaction()
        self.linear1, self.linear2 = nn.Linear(HIDDEN, FEEDFORWARD), nn.Linear(FEEDFORWARD, HIDDEN)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(HIDDEN) for _ in range(3))
        self.cls_module = nn.Sequential(TowerLayer())
        self.reg_module = nn.Sequential(TowerLayer(), TowerLayer(), TowerLayer())
        self.class_logits, self.bboxes_delta = nn.Linear(HIDDEN, num_classes), nn.Linear(HIDDEN, 4)

    def forward(self, pooled, boxes, features):
        attended = self.self_attn(features[None], features[None], features[None], need_weights=False)[0][0]
        features = self.norm1(features + attended)
        features = self.norm2(features + self.inst_interact(features, pooled))
        features = self.norm3(features + self.linear2(F.relu(self.linear1(features))))
        deltas = self.bboxes_delta(self.reg_module(features))
        size = boxes[:, 2:] - boxes[:, :2]
        centre = boxes[:, :2] + 0.5 * size + deltas[:, :2] / 2 * size
        half = 0.5 * deltas[:, 2:].clamp(max=MAX_LOG_SCALE).exp() * size
        return self.class_logits(self.cls_module(features)), torch.cat([centre - half, centre + half], 1), features


def pool(maps, boxes):
    """Each box from the level of its size, P2 to P5."""
    size = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    levels = (4 + torch.log2(size / 224 + 1e-8)).floor().clamp(2, 5)
    pooled = maps[0].new_zeros(len(boxes), HIDDEN, BINS, BINS)
    for level, x in enumerate(maps, 2):
        here = (levels == level).nonzero()[:, 0]
        pooled = pooled.index_put((here,), roi_align(x, [boxes[here]], BINS, 0.5**level, 2, aligned=True))
    return pooled


class SparseRcnn(nn.Module):
    def __init__(self, stages, num_classes):
        super().__init__()
        self.backbone = resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=None,
            norm_layer=nn.BatchNorm2d,
            trainable_layers=5,
            returned_layers=[1, 2, 3, 4],
        )
        self.init_proposal_features = nn.Embedding(PROPOSALS, HIDDEN)
        self.init_proposal_boxes = nn.Embedding(PROPOSALS, 4)
        self.head = nn.Module()
        self.head.head_series = nn.ModuleList(Stage(num_classes) for _ in range(stages))

    def forward(self, image):
        """Logits and boxes of every stage."""
        maps = list(self.backbone(image).values())[:4]
        height, width = image.shape[-2:]
        shares = self.init_proposal_boxes.weight
        half = shares[:, 2:] / 2
        boxes = torch.cat([shares[:, :2] - half, shares[:, :2] + half], 1) * shares.new_tensor([width, height] * 2)
        features, outputs = self.init_proposal_features.weight, []
        for stage in self.head.head_series:
            logits, moved, features = stage(pool(maps, boxes.detach()), boxes, features)
            outputs.append((logits, moved))
            boxes = moved.detach()
        return outputs

    def detect(self, image):
        """Boxes, scores and classes: the best 100 pairs of proposal and class, doubles suppressed."""
        logits, boxes = self(image)[-1]
        scores, best = logits.sigmoid().flatten().topk(PROPOSALS)
        boxes, classes = boxes[best // logits.shape[1]], best % logits.shape[1]
        kept = batched_nms(boxes, scores, classes, 0.7)
        boxes = clip_boxes_to_image(boxes[kept], image.shape[-2:])
        proper = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return boxes[proper], scores[kept][proper], classes[kept][proper]

    def loss(self, image, truth, classes):
        """The losses of all stages together, each matched by itself."""
        from scipy.optimize import linear_sum_assignment

        height, width = image.shape[-2:]
        sides = truth.new_tensor([width, height] * 2)
        total = 0
        for logits, boxes in self(image):
            with torch.no_grad():
                p = logits.sigmoid()[:, classes]
                cost = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()
                cost = CLASS_WEIGHT * cost + L1_WEIGHT * torch.cdist(boxes / sides, truth / sides, p=1)
                cost = cost - GIOU_WEIGHT * generalized_box_iou(boxes, truth)
                rows, cols = (torch.as_tensor(i) for i in linear_sum_assignment(cost.numpy()))
            shown = torch.zeros_like(logits)
            shown[rows, classes[cols]] = 1
            found, wanted = boxes[rows], truth[cols]
            total = total + CLASS_WEIGHT * sigmoid_focal_loss(logits, shown, 0.25, 2, "sum")
            total = total + L1_WEIGHT * (found / sides - wanted / sides).abs().sum()
            total = total + GIOU_WEIGHT * generalized_box_iou_loss(found, wanted, reduction="sum")
        return total / max(len(truth), 1)
