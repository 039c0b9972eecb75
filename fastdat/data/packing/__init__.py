"""Pack a data set into a store: in parallel, resumable after any interruption, in place only when it is complete.

Work goes on in ``DEST.partial``. Several processes decode pieces of a few hundred images (:mod:`.pieces`,
:mod:`.workers`), which are appended in order to the split's files (:mod:`.split_writer`, :mod:`.npy_writer`). Every few
seconds one more line in ``journal.jsonl`` (:mod:`.journal`) records how far the files are valid, which images they were
made from and which images were skipped. A killed run resumes after the last line whose images are unchanged, and
produces the same bytes as an uninterrupted one. :mod:`.partial_store` guards the folder, :mod:`.packer` puts all
together.
"""

from fastdat.data.packing.packer import Packed, pack

__all__ = ["Packed", "pack"]
