"""The shapes of a network's inputs and outputs in signatures, checked when the tests run (tests/conftest.py).

The letters are those of `ssm/shapes.py`, and `d` for the documents of an example: 2 in Retrieval.
"""

from __future__ import annotations

from jax import Array
from jaxtyping import Bool, Float, Int, UInt8

Tokens = UInt8[Array, "b L"] | UInt8[Array, "b d L"] | UInt8[Array, "b L channels"]
"""The inputs of a batch: tokens or pixels of one document each, of pairs of documents, or pixels in color."""

DocumentTokens = UInt8[Array, "documents L"]
"""The inputs of a batch in which every document has its own row."""

TokensOfPairs = UInt8[Array, "b d L"]
"""The inputs of a batch of pairs."""

TimeMajorDocuments = UInt8[Array, "L documents"]
"""Tokens or pixels, time first, where every document has its own row of the batch."""

TimeMajorTokens = UInt8[Array, "..."]
"""Tokens or pixels, time first: (L, b), or (L, b, channels) in color."""

TokensAt = UInt8[Array, "b"] | UInt8[Array, "b channels"]
"""The token or pixel of each document at one step."""

Lengths = Int[Array, "b"] | Int[Array, "b d"]
"""The true length of each document."""

LengthsOfPairs = Int[Array, "b d"]
"""The true length of each document of each pair."""

DocumentLengths = Int[Array, "documents"]
"""The true length of each document, where every document has its own row of the batch."""

DocumentFeatures = Float[Array, "L documents H"]
"""Activations, time first, where every document has its own row of the batch."""

StepFeatures = Float[Array, "steps documents H"]
"""Activations of every position, time first, behind that of a class token where there is one."""

Predictions = Float[Array, "L documents values"]
"""What a network predicts of the input at each position: scores of its values, or the number itself."""

PositionLosses = Float[Array, "L documents"]
"""The loss of the prediction at each position."""

Pooled = Float[Array, "documents H"]
"""The features of each document after pooling."""

Logits = Float[Array, "b classes"]
"""The scores of the classes, before the softmax."""

AnyFeatures = Float[Array, "*axes H"]
"""Activations with any leading axes: (L, b, H), or (b, H) at one step."""

HeadFeatures = Float[Array, "L b heads d"]
"""Queries, keys or values of attention."""

HeadFeaturesAt = Float[Array, "b heads d"]
"""The query, the key or the value of each document at one step."""

RealSteps = Bool[Array, "steps b"]
"""Whether a step of a cache is of a position that is real, not padding."""

RealPositionsAt = Bool[Array, "b"]
"""Whether the position of each document at one step is real, not padding."""

Step = Int[Array, ""]
"""The number of a step, from 0."""

RealPositions = Bool[Array, "L documents"]
"""Whether a position is real, not padding."""

PerFeature = Float[Array, "H"]
"""One number for each feature."""

Mask = Float[Array, "L b 1"]
"""The factor of each position: 1, or 0 on padding."""

DropoutMasks = Float[Array, "masks b H"]
"""The factors of the features for each dropout of a block."""

DenseInput = Float[Array, "*axes inputs"]
"""The argument of a dense layer."""

DenseOutput = Float[Array, "*axes outputs"]
"""The value of a dense layer."""

AttentionKeys = Float[Array, "L b z"]
"""Queries or keys of attention with one head."""

AttentionValues = Float[Array, "L b V"]
"""Values of attention with one head, and what it computes."""

PerLag = Float[Array, "lags"]
"""One number for each lag between two positions, from the most negative one on."""
