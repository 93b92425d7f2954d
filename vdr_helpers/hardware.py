"""What a receipt says about the machine that it was taken on (``receipts``): the card and its memory."""

from __future__ import annotations

import platform

from vdr_helpers.planner import describe_card
from vdr_helpers.terms import GIB


def hardware() -> dict:
    """What the receipt says about this machine: the card's own name, its key among the planner's cards, memory, capability."""
    import torch

    if not torch.cuda.is_available():
        return {"device": f"CPU ({platform.machine()})", "card": None, "memory_gib": None, "capability": None}
    properties = torch.cuda.get_device_properties(0)
    known = describe_card(properties.name, properties.total_memory / GIB, (properties.major, properties.minor))
    return {
        "device": properties.name,
        "card": known if isinstance(known, str) else None,
        "memory_gib": round(properties.total_memory / GIB, 2),
        "capability": [properties.major, properties.minor],
    }
