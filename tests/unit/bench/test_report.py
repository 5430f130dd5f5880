"""What the comparison says of what it read."""

from bench.report import Figure, Reading, figures, markdown, percentile


def test_the_figures_of_all_rounds_are_a_median_and_a_range() -> None:
    read = [Reading("Rate", "Chiffon", value, "tasks/s") for value in (30.0, 10.0, 20.0)]

    assert figures(read) == {"Rate": {"Chiffon": Figure(20.0, 10.0, 30.0, 3, "tasks/s")}}


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]

    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0


def test_a_table_says_how_many_times_the_others_chiffon_is_and_what_they_do_not_do() -> None:
    rows = {"Chiffon": Figure(3000.0, 2900.0, 3100.0, 5, "tasks/s"), "Peer": Figure(1200.0, 1.5, 1300.0, 5, "tasks/s")}

    text = markdown("Rate", rows, base=rows["Chiffon"], notes={"Peer": "no fence"})

    assert text.splitlines() == [
        "### Rate",
        "",
        "|  | median | lowest | highest | unit | Chiffon ÷ it | what it does not do |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| Chiffon | 3,000 | 2,900 | 3,100 | tasks/s | 1.00 |  |",
        "| Peer | 1,200 | 1.5 | 1,300 | tasks/s | 2.50 | no fence |",
    ]


def test_columns_that_say_nothing_are_left_out() -> None:
    text = markdown("Sizes", {"agent": Figure(50.0, 50.0, 50.0, 1, "MB")}, base=None, notes={})

    assert "| agent | 50 | 50 | 50 | MB |" in text.splitlines()
