"""The loss's gradient, layer by layer."""

from __future__ import annotations

import numpy as np
import torch

from lab.diagnostics.base import Experiment, NotApplicableError
from lab.diagnostics.engine.places import Place, places
from lab.diagnostics.registry import diagnostic
from lab.diagnostics.values import Figure, layer_axis
from lab.model.loss import token_loss_sum


@diagnostic("gradients", source="layer-wise gradient norms: arXiv:2002.04745, arXiv:2412.13795")
class Gradients(Experiment):
    """L2 norm of the gradient of the mean loss over the whole probe, by layer and sublayer.

    Taken with `torch.autograd.grad`, so that gradients that the model holds already stay as they are.
    """

    def prepare(self) -> None:
        self._parameters = list(self.session.model.parameters())
        if frozen := [parameter.dtype for parameter in self._parameters if not parameter.is_floating_point()]:
            raise NotApplicableError(
                f"gradients: weights of type {frozen[0]} (quantised) have none; load the model without quantisation"
            )
        self._gradients = [self.total(*parameter.shape, dtype=torch.float32) for parameter in self._parameters]

    def run(self) -> None:
        session = self.session
        targets = int(session.probe.summary()["predicted"])
        for parameter in self._parameters:
            parameter.requires_grad_()
        for batch in session.batches():
            with torch.enable_grad():
                logits = session.model(**batch.inputs, use_cache=False).logits
                loss = token_loss_sum(logits, batch.targets) / targets
            gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
            for so_far, gradient in zip(self._gradients, gradients, strict=True):
                if gradient is not None:
                    so_far.add_(gradient)

    def figures(self) -> dict[str, Figure]:
        of = {id(parameter): gradient for parameter, gradient in zip(self._parameters, self._gradients, strict=True)}
        squares = {
            place: np.array(
                [
                    sum(float(of[id(parameter)].double().square().sum()) for parameter in parameters),
                    sum(float(parameter.detach().double().square().sum()) for parameter in parameters),
                ]
            )
            for place, parameters in places(self.session).items()
        }
        axis = layer_axis(self.session.depth)
        found = {}
        for kind, parts, over in (
            ("layer", ("attention", "mlp"), "all weights of the layer"),
            ("attention", ("attention",), "the weights of its attention and its norms"),
            ("mlp", ("mlp",), "the weights of its MLP and its norms"),
        ):
            by_layer = [sum(squares.get(Place(layer, part), np.zeros(2)) for part in parts) for layer in axis["layer"]]
            gradient, weight = np.sqrt(np.array(by_layer)).T
            what = f"L2 norm, over {over}, of the gradient of the mean loss over the probe"
            found[kind] = Figure(gradient, axis, "nats/token", what)
            relative = gradient / np.where(weight > 0, weight, np.nan)
            found[f"{kind}_relative"] = Figure(
                relative, axis, "nats/token", f"{what}, divided by that of the weights themselves"
            )
        for part in ("embedding", "final_norm", "head"):
            if (place := Place(0, part)) in squares:
                found[part] = Figure(
                    np.sqrt(squares[place][0]), {}, "nats/token", f"L2 norm over the {part.replace('_', ' ')}"
                )
        return found
