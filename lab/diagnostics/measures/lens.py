"""What the model would say if it stopped after layer l."""

from __future__ import annotations

from lab.diagnostics.base import Reading
from lab.diagnostics.engine.decoding import decode_all
from lab.diagnostics.engine.streams import Streams
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, stream_axis


@diagnostic("lens", source="logit lens: nostalgebraist 2020; arXiv:2303.08112")
class Lens(Reading):
    """h_l decoded with the model's final norm and head."""

    def prepare(self) -> None:
        self._sums = {kind: self.block_sums(self.session.depth + 1) for kind in ("loss", "top1", "kl")}

    def update(self, streams: Streams) -> None:
        batch = streams.batch
        decoded = decode_all(self.session, streams.hidden[:-1], streams.hidden[-1], batch.targets, batch.predicted)
        for sums in self._sums.values():
            sums.count(batch.rows, batch.predicted.sum(1))
        own, *earlier = decoded
        for place, of_stream in enumerate([*earlier, own]):
            self._sums["loss"].add(batch.rows, place, of_stream.loss)
            self._sums["top1"].add(batch.rows, place, of_stream.hits)
            self._sums["kl"].add(batch.rows, place, of_stream.kl)

    def figures(self) -> dict[str, Figure]:
        about = {
            "loss": ("nats/token", "loss when h_l is decoded; mean over predicted tokens"),
            "top1": ("1", "share of predicted tokens that no other token is likelier than, when h_l is decoded"),
            "kl": ("nats/token", "KL(p_L || p_l) to the model's own distribution; mean over predicted tokens"),
        }
        axis = stream_axis(self.session.depth)
        return {kind: Figure(sums.mean(), axis, *about[kind], sums.error()) for kind, sums in self._sums.items()}
