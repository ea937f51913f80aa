"""How much each word adds to each score, by three methods, and how faithful their answers are.

All methods hide words in the same way (see `masking`) and so have the same baseline: the text with every word hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from thaw.data.ragged import capped, flattened, pad_rows, sorted_batches
from thaw.errors import UserError, missing
from thaw.inference.masking import Reading, Target, hidden_id, log_odds, masked_scores, probability, temperature_of
from thaw.inference.predictor import Predictor
from thaw.labels import LabelSet
from thaw.values import METHODS

STEPS = 50  # of Gauss-Legendre quadrature for integrated gradients: an error of 0.002 for MiniLM; 0.3 with 20 steps
STEP_TOKENS = 2_048  # in a batch with gradients, which keeps the activations of every layer
BINS = (1, 5, 10, 20, 50)  # percentages of the words for which faithfulness is measured, as in ERASER


@dataclass(frozen=True)
class Attribution:
    """The explanation of one text; the first axis of every array is the targets.

    Args:
        values: (targets, words): log-odds that each word adds.
        scores: log-odds of the full text.
        baselines: log-odds with every word hidden.
        probabilities: of the full text.
        comprehensiveness, sufficiency: see `faithfulness`.
    """

    values: np.ndarray
    scores: np.ndarray
    baselines: np.ndarray
    probabilities: np.ndarray
    comprehensiveness: np.ndarray
    sufficiency: np.ndarray


def check_method(method: str, gradients: bool = True, runs: int = 1) -> None:
    """Refuse a method that cannot work.

    Args:
        gradients: whether the network has gradients, which an exported model lacks.
        runs: how many vote.

    Raises:
        UserError: for an unknown method, several runs, integrated gradients of an exported model, or SHAP without shap.
    """
    if runs > 1:
        raise UserError(f"explain={method} is for one run, and {runs} vote", "Name one of them as run=...")
    if method not in METHODS:
        raise UserError(f"explain={method} is not known", f"Choose one of: {', '.join(METHODS)}.")
    if method == "integrated_gradients" and not gradients:
        raise UserError(
            "explain=integrated_gradients needs gradients, which an exported model lacks",
            "Leave backend=onnx out, or use explain=shap or leave_one_out.",
        )
    if method == "shap":
        partition_explainer()


def partition_explainer() -> Any:
    """The partition explainer of shap, imported without compiling numba functions.

    Raises:
        UserError: when shap is not installed.
    """
    try:
        config: Any = import_module("numba").config
        before, config.DISABLE_JIT = config.DISABLE_JIT, True  # compiling takes ten seconds and saves milliseconds
        try:
            from shap.explainers import PartitionExplainer
        finally:
            config.DISABLE_JIT = before
    except ImportError:
        raise missing("explain=shap", "shap", "shap") from None
    return PartitionExplainer


def attribute(predictor: Predictor, readings: Sequence[Reading], method: str, evaluations: int) -> list[Attribution]:
    """Attributions for some texts, computed together.

    Args:
        method: one of `thaw.values.METHODS`.
        evaluations: forward passes that SHAP may spend on each text.
    """
    all_and_none = [np.array([[True], [False]]).repeat(len(reading.words), axis=1) for reading in readings]
    ends = masked_scores(predictor, readings, all_and_none, log_odds)
    if method == "integrated_gradients":
        values = integrated_gradients(predictor, readings)
    elif method == "leave_one_out":
        values = leave_one_out(predictor, readings)
    else:
        values = [shap_values(predictor, reading, evaluations) for reading in readings]
    faithful = faithfulness(predictor, readings, values)
    return [
        Attribution(own, score, baseline, whole, removed, alone)
        for own, (score, baseline), (whole, removed, alone) in zip(values, ends, faithful, strict=True)
    ]


def leave_one_out(predictor: Predictor, readings: Sequence[Reading]) -> list[np.ndarray]:
    """How much each score drops when one word is hidden: (targets, words) for each text."""
    counts = [len(reading.words) for reading in readings]
    kept = (np.vstack([np.ones(words, dtype=bool), ~np.eye(words, dtype=bool)]) for words in counts)
    return [(scores[:1] - scores[1:]).T for scores in masked_scores(predictor, readings, kept, log_odds)]


def shap_values(predictor: Predictor, reading: Reading, evaluations: int) -> np.ndarray:
    """Owen values by shap's partition explainer (Lundberg and Lee 2017): (targets, words).

    They add up to the score minus its baseline, whatever the number of evaluations: when these run out, the words of a
    phrase share its value equally.

    Args:
        evaluations: forward passes at most.
    """

    def scores(kept: np.ndarray) -> np.ndarray:
        return masked_scores(predictor, [reading], [kept], log_odds)[0]

    words = len(reading.words)
    if words < 2 or not reading.targets:  # nothing to share out
        both = scores(np.array([[True], [False]]).repeat(words, 1))
        return np.repeat((both[0] - both[1])[:, None], words, axis=1)

    def hide(kept: np.ndarray, _: Any) -> tuple[np.ndarray]:
        return (kept[None],)

    hide.shape = (1, words)  # type: ignore[attr-defined]
    hide.clustering = phrases(words)  # type: ignore[attr-defined]
    explainer = partition_explainer()(scores, hide)
    before = np.random.get_state()
    np.random.seed(0)  # shap breaks ties between phrases at random
    try:
        found = explainer.explain_row(
            np.arange(words), max_evals=evaluations, main_effects=False, error_bounds=False, outputs=None, silent=True,
            batch_size=predictor.batch_size, fixed_context=None,
        )  # fmt: skip
    finally:
        np.random.set_state(before)
    return np.asarray(found["values"]).T


def phrases(words: int) -> np.ndarray:
    """A balanced tree of adjacent words in shap's format: left, right, height and size of each phrase."""
    rows: list[list[float]] = []

    def join(start: int, end: int) -> int:
        if end - start == 1:
            return start
        left, right = join(start, (start + end) // 2), join((start + end) // 2, end)
        rows.append([left, right, end - start, end - start])
        return words + len(rows) - 1

    join(0, words)
    return np.array(rows, dtype=np.float64)


def integrated_gradients(predictor: Predictor, readings: Sequence[Reading]) -> list[np.ndarray]:
    """Integrated gradients on the word embeddings (Sundararajan et al. 2017): (targets, words) for each text.

    The path leads from the embeddings of mask tokens to those of the words; special tokens stay. How far the values are
    from adding up to the score minus its baseline shows how exact the quadrature is.
    """
    import torch

    network: Any = predictor.network
    embed = network.get_input_embeddings()
    network.requires_grad_(False)
    device = embed.weight.device
    tokenizer, scale = predictor.tokenizer, temperature_of(predictor)
    mask_id, padding = hidden_id(tokenizer), tokenizer.pad_token_id
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    at, weights = (nodes + 1) / 2, weights / 2
    flat, offsets = flattened([reading.ids for reading in readings])
    hidden, _ = flattened([np.where(reading.owner < 0, reading.ids, mask_id) for reading in readings])
    # The last column: tokens of no word.
    result = [np.zeros((len(reading.targets), len(reading.words) + 1)) for reading in readings]
    lengths = np.repeat(np.diff(offsets), STEPS)
    for batch in capped(sorted_batches(lengths, len(lengths)), lengths, STEP_TOKENS):
        rows, step = np.divmod(batch, STEPS)
        ids, mask = (torch.from_numpy(array).to(device) for array in pad_rows(flat, offsets, rows, padding))
        start = embed(torch.from_numpy(pad_rows(hidden, offsets, rows, padding)[0]).to(device))
        way = embed(ids) - start
        embeddings = (start + torch.from_numpy(at[step]).to(way)[:, None, None] * way).requires_grad_()
        with embed.register_forward_hook(lambda *_, given=embeddings: given):
            logits = network(input_ids=ids, attention_mask=mask).logits / scale
        odds = _log_odds(logits if logits.ndim == 3 else logits[:, None], predictor.labels)
        for t in range(max(len(readings[row].targets) for row in rows)):
            chosen = [(i, readings[row], readings[row].targets[t])
                      for i, row in enumerate(rows) if t < len(readings[row].targets)]  # fmt: skip
            total = sum(odds[i, _positions(reading, target), target.labels].mean() for i, reading, target in chosen)
            (gradient,) = torch.autograd.grad(total, embeddings, retain_graph=True)
            shares = (gradient * way).sum(-1).double().cpu().numpy() * weights[step][:, None]
            for i, reading, _ in chosen:
                np.add.at(result[rows[i]][t], reading.owner, shares[i, : len(reading.ids)])
    return [values[:, :-1] for values in result]


def _positions(reading: Reading, target: Target) -> np.ndarray:
    return reading.at[target.places] if len(reading.at) else target.places


def _log_odds(logits: Any, labels: LabelSet) -> Any:
    """The same as `log_odds`, with gradients."""
    import torch

    if labels.task == "multi_label":
        return logits
    diagonal = torch.eye(len(labels), dtype=torch.bool, device=logits.device)
    return logits - logits[..., None, :].masked_fill(diagonal, float("-inf")).logsumexp(-1)


def faithfulness(
    predictor: Predictor, readings: Sequence[Reading], values: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Probability, comprehensiveness and sufficiency of each target (DeYoung et al. 2020, ERASER), means over `BINS`.

    Comprehensiveness is how much the probability drops when the words with the highest values are hidden: more is
    better. Sufficiency is how much it drops when only these words are left: less is better.

    Args:
        values: (targets, words) for each text.
    """

    def kept(own: np.ndarray) -> np.ndarray:
        words = own.shape[1]
        places = np.argsort(np.argsort(-own, axis=-1, kind="stable"), axis=-1)  # 0: the word that adds most
        tops = [places < -(-share * words // 100) for share in BINS]
        return np.concatenate([np.ones((1, words), dtype=bool), *(~top for top in tops), *tops])

    result = []
    every = masked_scores(predictor, readings, map(kept, values), probability)
    for reading, scores in zip(readings, every, strict=True):
        targets = len(reading.targets)
        of_target = scores[1:].reshape(2, len(BINS), targets, targets).diagonal(axis1=2, axis2=3)
        removed, alone = scores[0] - of_target.mean(axis=1)
        result.append((scores[0], removed, alone))
    return result
