"""What keeps steps apart that run in several threads at once.

A step puts other tensors into D while it runs, so each D has a lock of its own: its steps run one after the other
(``prepared.calls_of``). Steps of different Ds share the engines, and torch.compile, of which some switches are global.
``SHARED`` is held wherever a step touches these. A thread takes the lock of D first, then ``SHARED``.
"""

from __future__ import annotations

import threading

SHARED = threading.RLock()
"""Of the engines, of inspections, of compiled steps, and of switches that PyTorch has once for all threads."""
