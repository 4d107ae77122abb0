"""`roi_align` and what else peers import by name."""

from torchvision.ops.boxes import masks_to_boxes
from torchvision.ops.roi_align import roi_align

__all__ = ["masks_to_boxes", "roi_align"]
