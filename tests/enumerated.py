"""All ways in which the draws of a small search can fall, each with its probability: exact expected values."""

from dataclasses import dataclass, field

from prunus.testing import ScriptedText


class Draws:
    """Draws that follow a given beginning and take the first possibility from there on."""

    def __init__(self, beginning):
        self.beginning, self.taken, self.sizes, self.probability = beginning, [], [], 1.0

    def among(self, probabilities):
        """An index, drawn with these probabilities."""
        possible = [i for i, p in enumerate(probabilities) if p > 0]
        at = len(self.taken)
        choice = self.beginning[at] if at < len(self.beginning) else 0
        self.taken.append(choice)
        self.sizes.append(len(possible))
        self.probability *= probabilities[possible[choice]] / sum(probabilities)
        return possible[choice]


def expectation(run):
    """The expected value of ``run(draws)`` over everything that it draws."""
    total, waiting, weight = 0.0, [[]], 0.0
    while waiting:
        draws = Draws(waiting.pop())
        value = run(draws)
        total, weight = total + draws.probability * value, weight + draws.probability
        for at in range(len(draws.beginning), len(draws.taken)):
            waiting += [[*draws.taken[:at], other] for other in range(1, draws.sizes[at])]
    assert abs(weight - 1) < 1e-9
    return total


@dataclass(frozen=True)
class EnumeratedText(ScriptedText):
    """A scripted writer whose steps are drawn by ``draws``, once for each path."""

    draws: Draws = None
    drawn: dict = field(default_factory=dict, compare=False)

    def pick(self, options, ask):
        if ask.path not in self.drawn:
            self.drawn[ask.path] = list(options)[self.draws.among(list(options.values()))]
        return self.drawn[ask.path]
