import copy
import pickle

from prunus.generators.written import Written


def test_it_is_the_string_that_its_steps_make():
    written = Written(("7+5=12\n", "12*3=36\n"))
    assert written == "7+5=12\n12*3=36\n" and isinstance(written, str)
    assert written.steps == ("7+5=12\n", "12*3=36\n") and written.whole


def test_nothing_written_is_the_empty_string():
    assert Written() == "" and Written().steps == () and Written().whole


def test_a_copy_and_a_pickle_keep_the_steps():
    written = Written(["7+5=12\n", "12"], whole=False)
    for same in (copy.deepcopy(written), pickle.loads(pickle.dumps(written))):
        assert (same, same.steps, same.whole) == (written, written.steps, False)
