"""A search without arithmetic: the streaming generator on torch's meta device, with the memory that a GPU would need.

Every tensor of the real code is made, kept and freed as in earnest, only without values; so shapes, costs and peaks are
those of the code itself. Counted is what would live on the device: states, what a forward makes, decoded frames until
they are copied to the host. Weights are left out, they are known.

Attention is taken to be a fused kernel that keeps no scores, as on every GPU of the last years; as off the CPU, a row's
context and its own chunk are put side by side. Workspaces of convolutions are not seen. Of forwards with equal shapes,
as in the steps of a chunk, only the first is run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.generators.kv_cache import unique_bytes
from prunus.generators.streaming_video import StreamingVideo, VideoState
from prunus.generators.video_model import VideoModel
from prunus.generators.wan_attention import WORK, ChunkWork, Work
from prunus.generators.wan_decoder import Features
from prunus.roles import Ask, Grown, View
from prunus.tree import Node


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of meta tensors that are alive, each storage once, from the first operation that returns it."""

    def __init__(self, ignored: Iterable[torch.Tensor]) -> None:
        """``ignored`` are tensors that are not counted: the weights."""
        super().__init__()
        self.live = self.peak = 0
        self._kept = [tensor.untyped_storage() for tensor in ignored]
        self._known = {id(storage) for storage in self._kept}
        self._on_host = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._known:
            return
        size = 0 if self._on_host else storage.nbytes()
        self._known.add(id(storage))
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, id(storage), size).atexit = False

    def _freed(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.live -= size

    def host_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy that does not count, because it is on the host."""
        self._on_host = True
        try:
            return torch.empty_like(tensor)
        finally:
            self._on_host = False

    @contextmanager
    def watch(self, report: Callable[[int, int], None]) -> Iterator[None]:
        """At the end tell ``report`` the bytes that were alive before, and the most that were alive meanwhile."""
        before, outer, self.peak = self.live, self.peak, self.live
        try:
            yield
        finally:
            report(before, self.peak)
            self.peak = max(outer, self.peak)


class MetaDevice(TorchFunctionMode):
    """Lets code that computes on a GPU run on the meta device: fused attention, and copies to the host."""

    def __init__(self, memory: LiveBytes) -> None:
        super().__init__()
        self.memory = memory

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        if func is torch.Tensor.cpu and args[0].device.type == "meta":
            return self.memory.host_copy(args[0])
        return func(*args, **(kwargs or {}))


class MetaVideo(StreamingVideo):
    """The streaming generator on the meta device; search inside ``with video.running()``.

    Filled by the search: ``attended``, the latent frames of context of each chunk that was grown; ``shown``, the chunks
    in each view that a reward was shown (its content is the node itself); ``peaks``, the most bytes by purpose;
    ``activations``, the most that a forward of ``transformer`` or ``decoder`` held beyond what was there before;
    ``cache_bytes``, the most that the blocks of all caches held.
    """

    def __init__(self, model: VideoModel, frames: int, weigh: bool = True) -> None:
        """Without ``weigh`` only the books are kept: forwards and decodings that nothing else needs are left out."""
        super().__init__(model, frames)
        self.weigh = weigh
        self.networks = {"transformer": model.transformer.transformer, "decoder": model.decoder.decoder}
        weights = [w for n in (*self.networks.values(), model.decoder.vae) for w in (*n.parameters(), *n.buffers())]
        self.memory = LiveBytes(weights)
        self.attended: list[int] = []
        self.shown: list[int] = []
        self.peaks = {"generating": 0, "rendering": 0}
        self.activations = {"transformer": 0, "decoder": 0}
        self.cache_bytes = 0
        self._shapes: set[tuple] = set()
        for start in (True, False):  # counted once, and not as part of the search
            model.decode_flops(self.chunk_frames, start)

    @contextmanager
    def running(self) -> Iterator[MetaVideo]:
        """Run what is inside on the meta device and take its measure."""
        inner = [self._measured(name, network) for name, network in self.networks.items()]
        try:
            with self.memory, MetaDevice(self.memory):
                yield self
        finally:
            for network, forward in inner:
                network.forward = forward

    def _measured(self, name: str, network: Any) -> tuple[Any, Any]:
        forward = network.forward

        def measured(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._seen(x, WORK.get()):
                return (torch.empty_like(x),)

            def report(before: int, most: int) -> None:
                self.activations[name] = max(self.activations[name], most - before)

            with self.memory.watch(report):
                return forward(x, *args, **kwargs)

        network.forward = measured
        return network, forward

    def _seen(self, x: torch.Tensor, work: Work | None) -> bool:
        """Whether a forward of the transformer like this one was run before, so that it shows nothing new.

        The steps of a chunk are alike. One that records keys and values is always run.
        """
        if not isinstance(work, ChunkWork) or work.record:
            return False
        shape = (x.shape, *((c.rows.start, c.rows.stop, c.keys.shape) for c in work.blocks))
        seen = shape in self._shapes or not self.weigh
        self._shapes.add(shape)
        return seen

    def _peak(self, purpose: str) -> Any:
        def report(_: int, most: int) -> None:
            self.peaks[purpose] = max(self.peaks[purpose], most)

        return self.memory.watch(report)

    def grow(self, asks: Sequence[Ask]) -> list[Grown]:
        with self._peak("generating"):
            grown = super().grow(asks)
        self.attended += [g.state.cache.frames_attended for g in grown]
        return grown

    def render(self, nodes: Sequence[Node], view: View) -> list[Any]:
        with self._peak("rendering"):
            self._decode(self._unseen(nodes, view))
        self.shown += [len(node.units(view.units)) for node in nodes]
        return list(nodes)

    def _decode(self, nodes: Sequence[Node]) -> None:
        if self.weigh:
            return super()._decode(nodes)
        for node in nodes:
            node.rendering = torch.empty(0)
            if node.state is not None:
                node.state.features, node.state.before = Features(), None

    def state_bytes(self, states: Sequence[VideoState]) -> int:
        self.cache_bytes = max(self.cache_bytes, unique_bytes(c for s in states for c in (s.cache, s.committed) if c))
        return super().state_bytes(states)
