"""How much each word adds to each score, by three methods, and how far their answer can be trusted.

A word is hidden by putting the mask token in place of each of its tokens, so that all others keep their positions. All
methods share this baseline: the text of which nothing but the special tokens is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.data.ragged import capped, gather, sorted_batches
from thaw.errors import UserError, missing
from thaw.inference.predictor import Predictor
from thaw.labels import LabelSet
from thaw.metrics.probabilities import probabilities

METHODS = ("shap", "integrated_gradients", "leave_one_out")
STEPS = 50  # of integrated gradients, by Gauss and Legendre's rule: MiniLM is then 0.002 off, with 20 steps 0.3
STEP_TOKENS = 2_048  # in a batch with gradients, which keeps what every layer has computed
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)  # shares of the words by which faithfulness is measured, as in ERASER


@dataclass(frozen=True)
class Target:
    """A score to be explained: of a label, or of a predicted entity.

    Args:
        name: the label, or the type of the entity.
        places: the tokens that it is read from, as places in ``Reading.at``; the score is the mean over them.
        labels: the label id at each of them.
        span: entities: first character and the one after the last.
    """

    name: str
    places: np.ndarray
    labels: np.ndarray
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reading:
    """A text as the network reads it, and what is to be explained.

    Args:
        ids: token ids, special tokens included, cut at the network's length.
        owner: the word that each token belongs to, -1 for those that are never hidden.
        words: first character and the one after the last, of each word that has a token.
        read: characters up to which the network read.
        at: the tokens whose logits matter; empty for labels of the whole text.
        targets: to be explained.
    """

    ids: np.ndarray
    owner: np.ndarray
    words: list[tuple[int, int]]
    read: int
    at: np.ndarray
    targets: list[Target]


@dataclass(frozen=True)
class Attribution:
    """What is known of the targets of one text; every array has the targets first.

    Args:
        values: (targets, words): log-odds that each word adds.
        scores: log-odds of the text as it is.
        baselines: log-odds with every word hidden.
        probabilities: of the text as it is.
        comprehensiveness, sufficiency: see `faithfulness`.
    """

    values: np.ndarray
    scores: np.ndarray
    baselines: np.ndarray
    probabilities: np.ndarray
    comprehensiveness: np.ndarray
    sufficiency: np.ndarray


def check_method(method: str, gradients: bool = True) -> None:
    """Refuse what cannot be done.

    Args:
        gradients: whether the network is one of torch.

    Raises:
        UserError: for a method that is not known, integrated gradients of an exported model, or SHAP without shap.
    """
    if method not in METHODS:
        raise UserError(f"explain={method} is not known", f"Choose one of: {', '.join(METHODS)}.")
    if method == "integrated_gradients" and not gradients:
        raise UserError(
            "explain=integrated_gradients needs gradients, which an exported model has not",
            "Leave backend=onnx out, or take explain=shap or leave_one_out.",
        )
    if method == "shap":
        partition_explainer()


def partition_explainer() -> Any:
    """The class of shap.

    Raises:
        UserError: when shap is not installed.
    """
    try:
        from numba import config

        before, config.DISABLE_JIT = config.DISABLE_JIT, True  # to compile takes ten seconds, and saves milliseconds
        try:
            from shap.explainers import PartitionExplainer
        finally:
            config.DISABLE_JIT = before
    except ImportError:
        raise missing("explain=shap", "shap", "shap") from None
    return PartitionExplainer


def attribute(
    predictor: Predictor, readings: Sequence[Reading], method: str, evaluations: int = 200
) -> list[Attribution]:
    """Attributions of some texts, computed together.

    Args:
        method: one of `METHODS`.
        evaluations: of the network that SHAP may spend on each text.
    """
    ends = _values(predictor, readings, [np.array([[True], [False]]).repeat(len(one.words), 1) for one in readings])
    if method == "integrated_gradients":
        values = integrated_gradients(predictor, readings)
    elif method == "leave_one_out":
        values = leave_one_out(predictor, readings)
    else:
        values = [shap_values(predictor, one, evaluations) for one in readings]
    faithful = faithfulness(predictor, readings, values)
    return [
        Attribution(own, *log_odds(one, end, predictor), chances(one, end, predictor)[0], *pair)
        for one, end, own, pair in zip(readings, ends, values, faithful, strict=True)
    ]


def log_odds(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The log-odds of each target, log p / (1 - p): for one label against all others, or of a label on its own.

    Unlike a probability they do not stand still where the network is sure, and unlike a logit they mean the same when
    all logits of a text move together.

    Args:
        values: logits (rows, places, labels), as `_values` gives them.

    Returns:
        (rows, targets), float64.
    """
    return _over_places(reading, values, _log_odds(values / _temperature(predictor), predictor.labels))


def chances(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The probability of each target, as `log_odds`."""
    return _over_places(reading, values, predictor.probabilities(values))


def _over_places(reading: Reading, values: np.ndarray, of_labels: np.ndarray) -> np.ndarray:
    columns = [of_labels[:, target.places, target.labels].mean(-1) for target in reading.targets]
    return np.stack(columns, -1) if columns else np.zeros((len(values), 0))


def _log_odds(logits: np.ndarray, labels: LabelSet) -> np.ndarray:
    logits = logits.astype(np.float64)
    if labels.task == "multi_label":
        return logits
    others = np.where(np.eye(len(labels), dtype=bool), -np.inf, logits[..., None, :])
    return logits - np.logaddexp.reduce(others, axis=-1)


def _temperature(predictor: Predictor) -> float:
    return (predictor.calibrated and predictor.temperature) or 1.0


def hidden_id(tokenizer: Any) -> int:
    """The token that stands for what is hidden: the mask, else padding."""
    return tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id


def _values(predictor: Predictor, readings: Sequence[Reading], kept: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Logits of each text with some of its words hidden; what is asked for twice is computed once.

    Args:
        kept: (rows, words) for each text: which words stay.

    Returns:
        (rows, places, labels) for each text; a single place for labels of the whole text.
    """
    mask_id = hidden_id(predictor.tokenizer)
    rows, owners, backs = [], [], []
    for i, (reading, own) in enumerate(zip(readings, kept, strict=True)):
        different, back = np.unique(own, axis=0, return_inverse=True)
        shown = np.column_stack([different, np.ones(len(different), dtype=bool)])[:, reading.owner]  # -1: always
        rows += list(np.where(shown, reading.ids, mask_id))
        owners += [i] * len(different)
        backs.append(back.reshape(-1))
    found: list[Any] = [None] * len(rows)
    flat, offsets = joined(rows)
    for batch in predictor._batches(np.diff(offsets)):
        for row, logits in zip(
            batch, predictor.logits(*gather(flat, offsets, batch, _padding(predictor))), strict=True
        ):
            found[row] = logits[readings[owners[row]].at] if logits.ndim == 2 else logits[None]
    starts = np.searchsorted(owners, np.arange(len(readings) + 1))
    return [np.stack(found[start:end])[back] for start, end, back in zip(starts[:-1], starts[1:], backs, strict=True)]


def joined(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal length as a flat array, and where each starts."""
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])


def _padding(predictor: Predictor) -> int:
    result: int = predictor.tokenizer.pad_token_id
    return result


def leave_one_out(predictor: Predictor, readings: Sequence[Reading]) -> list[np.ndarray]:
    """What each score loses when one word is hidden: (targets, words) for each text."""
    kept = [np.vstack([np.ones(len(one.words), dtype=bool), ~np.eye(len(one.words), dtype=bool)]) for one in readings]
    result = []
    for reading, values in zip(readings, _values(predictor, readings, kept), strict=True):
        scores = log_odds(reading, values, predictor)
        result.append((scores[:1] - scores[1:]).T)
    return result


def shap_values(predictor: Predictor, reading: Reading, evaluations: int) -> np.ndarray:
    """Owen values by the partition explainer of shap (Lundberg and Lee 2017): (targets, words).

    They add up to the score minus its baseline whatever the number of evaluations: where these run out, the words of a
    phrase share what it adds.

    Args:
        evaluations: of the network at most.
    """

    def scores(kept: np.ndarray) -> np.ndarray:
        return log_odds(reading, _values(predictor, [reading], [kept])[0], predictor)

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
    np.random.seed(0)  # shap draws numbers to decide between phrases of the same weight
    try:
        found = explainer.explain_row(
            np.arange(words), max_evals=evaluations, main_effects=False, error_bounds=False, outputs=None, silent=True,
            batch_size=predictor.batch_size, fixed_context=None,
        )  # fmt: skip
    finally:
        np.random.set_state(before)
    return np.asarray(found["values"]).T


def phrases(words: int) -> np.ndarray:
    """A balanced tree of neighbouring words, as shap reads it: left, right, height and size of each phrase."""
    rows: list[list[float]] = []

    def join(start: int, end: int) -> int:
        if end - start == 1:
            return start
        left, right = join(start, (start + end) // 2), join((start + end) // 2, end)
        rows.append([left, right, end - start, end - start])
        return words + len(rows) - 1

    join(0, words)
    return np.array(rows, dtype=np.float64)


def integrated_gradients(predictor: Predictor, readings: Sequence[Reading], steps: int = STEPS) -> list[np.ndarray]:
    """Integrated gradients on the word embeddings (Sundararajan et al. 2017): (targets, words) for each text.

    The way leads from the embedding of the mask token, special tokens kept, to those of the words. By how much the
    values miss the score minus its baseline shows how exact the sum over the steps is.
    """
    import torch

    network: Any = predictor.network
    embed = network.get_input_embeddings()
    network.requires_grad_(False)
    device = embed.weight.device
    mask_id, padding, scale = hidden_id(predictor.tokenizer), _padding(predictor), _temperature(predictor)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    at, weights = (nodes + 1) / 2, weights / 2
    flat, offsets = joined([one.ids for one in readings])
    hidden, _ = joined([np.where(one.owner < 0, one.ids, mask_id) for one in readings])
    result = [np.zeros((len(one.targets), len(one.words) + 1)) for one in readings]  # the last: of no word
    lengths = np.repeat(np.diff(offsets), steps)
    given: Any = None

    def replace(*_: Any) -> Any:
        return given

    for batch in capped(sorted_batches(lengths, len(lengths)), lengths, STEP_TOKENS):
        rows, step = np.divmod(batch, steps)
        ids, mask = (torch.from_numpy(array).to(device) for array in gather(flat, offsets, rows, padding))
        start = embed(torch.from_numpy(gather(hidden, offsets, rows, padding)[0]).to(device))
        way = embed(ids) - start
        given = (start + torch.from_numpy(at[step]).to(way)[:, None, None] * way).requires_grad_()
        hook = embed.register_forward_hook(replace)
        try:
            logits = network(input_ids=ids, attention_mask=mask).logits / scale
        finally:
            hook.remove()
        odds = _torch_log_odds(logits if logits.ndim == 3 else logits[:, None], predictor.labels)
        for t in range(max(len(readings[row].targets) for row in rows)):
            chosen = [(i, readings[row], readings[row].targets[t])
                      for i, row in enumerate(rows) if t < len(readings[row].targets)]  # fmt: skip
            total = sum(odds[i, _positions(one, target), target.labels].mean() for i, one, target in chosen)
            (gradient,) = torch.autograd.grad(total, given, retain_graph=True)
            shares = (gradient * way).sum(-1).double().cpu().numpy() * weights[step][:, None]
            for i, one, _ in chosen:
                np.add.at(result[rows[i]][t], one.owner, shares[i, : len(one.ids)])
    return [own[:, :-1] for own in result]


def _positions(reading: Reading, target: Target) -> np.ndarray:
    return reading.at[target.places] if len(reading.at) else target.places


def _torch_log_odds(logits: Any, labels: LabelSet) -> Any:
    """As `_log_odds`, with gradients."""
    import torch

    if labels.task == "multi_label":
        return logits
    own = torch.eye(len(labels), dtype=torch.bool, device=logits.device)
    return logits - logits[..., None, :].masked_fill(own, float("-inf")).logsumexp(-1)


def faithfulness(
    predictor: Predictor, readings: Sequence[Reading], values: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Comprehensiveness and sufficiency of each target (DeYoung et al. 2020, ERASER), means over `BINS`.

    Comprehensiveness is what the probability loses when the words with the highest values are hidden: the more, the
    better. Sufficiency is what it loses when they alone are left: the less, the better.

    Args:
        values: (targets, words) for each text.
    """
    kept = []
    for reading, own in zip(readings, values, strict=True):
        words = len(reading.words)
        places = np.argsort(np.argsort(-own, axis=-1, kind="stable"), axis=-1)  # 0: the word that adds most
        tops = [places < np.ceil(share * words) for share in BINS]
        rows = [np.ones((1, words), dtype=bool), *(~top for top in tops), *tops]
        kept.append(np.concatenate(rows))
    result = []
    for reading, found in zip(readings, _values(predictor, readings, kept), strict=True):
        targets, scores = len(reading.targets), chances(reading, found, predictor)
        mine = scores[1:].reshape(2, len(BINS), targets, targets).diagonal(axis1=2, axis2=3)
        removed, alone = (scores[0] - mine.mean(axis=1)) if targets else np.zeros((2, 0))
        result.append((removed, alone))
    return result
