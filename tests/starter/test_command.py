from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.starter.command import exit_code


def test_words_go_to_standard_output(capsys):
    assert exit_code(lambda: "3 glyphs") == 0
    assert capsys.readouterr() == ("3 glyphs\n", "")


def test_an_error_is_one_line_and_its_code(capsys):
    for kind, code in ((UserError, 2), (VouchError, 1)):

        def fail(kind=kind):
            raise kind("fix it")

        assert exit_code(fail) == code
        assert capsys.readouterr() == ("", "fix it\n")
