"""Which rows attend to what in one go."""

import torch

from prunus.generators.kv_cache import unique_bytes
from prunus.generators.prefix_cache import LONG, Block, Context, pieces


def block(tokens, fill=0.0):
    return Block(torch.full((2, 1, tokens, 4), fill), torch.full((2, 1, tokens, 4), fill))


def seen(found, row):
    """The numbers that a row attends to, of all pieces."""
    numbers = []
    for piece in found:
        for segment, rows in enumerate(piece.rows):
            if row in rows:
                values = piece.keys[0, segment, 0, :, 0]
                numbers += (values if piece.mask is None else values[piece.mask[segment, 0]]).tolist()
    return numbers


def test_a_context_knows_its_length_and_siblings_share_memory():
    prompt, left, right = block(5), block(2), block(3)
    parent = Context().then(prompt)
    children = [parent.then(left), parent.then(right)]
    assert [c.length for c in children] == [7, 8]
    assert unique_bytes(children) == (5 + 2 + 3) * 2 * 2 * 4 * 4  # tokens, keys and values, layers, dim, bytes


def test_every_row_attends_to_its_blocks_and_no_others():
    prompt, a, b, aa, ab, other = (block(n, fill) for n, fill in ((LONG, 1), (3, 2), (2, 3), (1, 4), (4, 5), (2, 6)))
    root = Context().then(prompt)
    leaves = [root.then(a).then(aa), root.then(a).then(ab), root.then(b), Context().then(other), root, Context()]
    rows = [[0, 3], [1], [2], [4, 6], [5], [7]]
    found = pieces(leaves, rows)
    for context, members in zip(leaves, rows, strict=True):
        expected = [float(v) for x in context.blocks for v in x.keys[0, 0, :, 0]]
        for row in members:
            assert sorted(seen(found, row)) == sorted(expected)
    # The long block lies where it was; the short ones of a level of the tree are side by side in one piece.
    assert [len(piece.rows) for piece in found] == [1, 1, 2, 2]
    assert found[0].keys.data_ptr() == prompt.keys.data_ptr()


def test_a_chain_of_short_blocks_is_one_segment():
    context = Context()
    for fill in range(6):
        context = context.then(block(2, fill))
    [piece] = pieces([context], [[0, 1, 2]])
    assert piece.keys.shape == (2, 1, 1, 12, 4) and piece.rows == [[0, 1, 2]] and piece.in_order
    assert seen([piece], 1) == [float(fill) for fill in range(6) for _ in range(2)]


def test_rows_leave():
    root = Context().then(block(3, 1))
    [_, piece] = pieces([root.then(block(2, 2)), root.then(block(4, 3))], [[0, 1], [2, 3]])
    left = piece.keep({1: 0, 2: 1, 3: 2})
    assert left.rows == [[0], [1, 2]] and not left.in_order
    assert left.index.tolist() == [[0, 0], [1, 2]] and left.places.tolist() == [0, 2, 3]
    last = left.keep({2: 0})
    assert last.rows == [[0]] and seen([last], 0) == [3.0] * 4
    assert last.keep({}) is None
