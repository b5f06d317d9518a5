"""A finished or unfinished tree as a beam leaves it, for what draws trees."""

import torch

from prunus import Score, Tree
from prunus.tree import Node, Status

EVIL = "</script><script>document.title='owned'</script> \"a\" 'b' <img src=x onerror=alert(1)> &amp; {{ 7 * 7 }}"


def grown(prompt="a red circle moving right", reward="clip", chunks=3, keep=2, branch=2, finish=True, size=32):
    """A tree as a beam leaves it: red frames, scores that count up, the first branch chosen."""
    tree = Tree(prompt)
    tree.rewards = ("frame", reward)
    tree.spec = {"strategy": {"name": "StreamT1", "short": "frame", "long": reward}}
    parents = [tree.root]
    for _ in range(chunks):
        row = []
        for parent in parents:
            for i in range(branch * keep // len(parents)):
                node = Node(len(tree.nodes), parent, (*parent.path, i), parent.depth + 1, unit={})
                node.rendering = torch.zeros(3, 3, size, size, dtype=torch.uint8)
                node.rendering[:, 0] = 10 * node.id % 250
                node.scores = {"frame": Score(node.id / 10), reward: Score(-node.id / 10, {EVIL: 1.0, "motion": 0.5})}
                tree.note(node)["value"] = -float(node.id)
                tree.nodes.append(node)
                row.append(node)
        for node in row[keep:]:
            node.move(Status.PRUNED)
        if parents != [tree.root]:
            for parent in parents:
                parent.move(Status.CLOSED)
        parents = row[:keep]
    if finish:
        for node in parents:
            node.move(Status.DONE)
        tree.result = parents[0]
    return tree
