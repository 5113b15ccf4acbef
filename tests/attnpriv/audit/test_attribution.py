from __future__ import annotations

import copy

from attnpriv.audit.attribution import measure_attribution
from attnpriv.audit.documents import Documents
from attnpriv.audit.gradients import Gradients
from attnpriv.models.text import TextClassifier


def test_measure_counts_and_samples(model: TextClassifier, documents: Documents) -> None:
    settings = {"permutations": 50, "resamples": 50, "seed": 0}
    targets = [0] * len(documents)
    result = measure_attribution(Gradients(model, documents, targets, 8), most=11, **settings)
    eligible = sum(flags.any() for flags in documents.sensitive)
    assert (result.documents, result.sampled_from) == (11, eligible)
    assert 11 < eligible < len(documents)
    assert result.documents_with_sensitive == 11
    assert 0 < (result.share or 0) < 1
    assert 0 < result.mean_completeness_error < result.largest_completeness_error
    assert result.unconverged == 0
    assert (result.lift.lift.low or 9) <= (result.lift.lift.value or 0)
    assert result.steps == 8
    again = measure_attribution(Gradients(model, documents, targets, 8), most=11, **settings)
    assert again == result


def test_a_model_that_reads_only_sensitive_tokens_is_found(
    model: TextClassifier, documents: Documents
) -> None:
    """Positive control: embeddings of all other tokens are cut off from the answer."""
    sensitive_ids = {
        documents.samples[d].ids[t]
        for d in range(len(documents))
        for t in documents.sensitive[d].nonzero()[0]
    }
    leaky = copy.deepcopy(model)
    words = leaky.words.weight
    deaf = [i for i in range(len(words)) if i not in sensitive_ids]
    words[deaf] = words[0].clone()  # read like padding
    result = measure_attribution(
        Gradients(leaky, documents, [0] * len(documents), 8),
        most=40,
        permutations=200,
        resamples=50,
        seed=0,
    )
    assert (result.lift.lift.low or 0) > 1.1
    assert (result.lift.p_value or 1) < 0.05
