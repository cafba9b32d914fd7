import datetime

import pytest

from memr1_jax.data.times import read_times

MOMENT = datetime.datetime(2023, 5, 8, 13, 56)
DAY = datetime.datetime(2023, 5, 8)


@pytest.mark.parametrize(
    "text",
    [
        "1:56 pm on 8 May, 2023",
        "2023/05/08 (Mon) 13:56",
        "2023-05-08T13:56:00Z",
        "2023-05-08T13:56:00.000+00:00",
        "2023-05-08T15:56:00+0200",
        "2023-05-08 13:56",
        "20230508 13:56",
        "Mon, 08 May 2023 13:56:00 +0000",
        "May 8, 2023, 1:56 PM",
        "May 8th, 2023 at 1:56 p.m.",
        "8 May 2023 13:56",
        "Monday, May 8, 2023 1:56 PM UTC",
        "[5/8/23, 1:56:00 PM]",
        "5/8/2023 13:56",
        "08.05.2023, 13:56",
        "1683554160",
        "1683554160000",
        "1683554160.000246",
        "  1:56\u202fpm on 8 May, 2023 ",
    ],
)
def test_a_moment_is_read_in_many_forms(text):
    assert read_times([text]) == [MOMENT]


@pytest.mark.parametrize(
    "text", ["2023-05-08", "8 May 2023", "May 8, 2023", "8.5.2023", "20230508"]
)
def test_a_day_is_read(text):
    assert read_times([text]) == [DAY]


def test_a_month_is_read():
    assert read_times(["May 2023"]) == [datetime.datetime(2023, 5, 1)]


@pytest.mark.parametrize(
    "text",
    [
        *("Monday", "x", "", "7 days 8 hours ago", "2023-13-40", "25:99 on 8 May, 2023", "2023"),
        *(
            "13:56",
            "8 May",
            "5/8/2023 whenever",
            "0" * 5000,
            "٢٠٢٣-٠٥-٠٨",
            "13:00 pm on 8 May, 2023",
        ),
        "0000-00-00",
        "9999-12-31 24:00",
    ],
)
def test_what_is_no_time_is_not_read(text):
    assert read_times([text]) == [None]


def test_the_dates_of_a_dialogue_are_read_in_one_order():
    texts = ["12/06/2023 23:58", "13/06/2023 00:02"]
    first, second = read_times(texts)
    assert second - first == datetime.timedelta(minutes=4)
    assert read_times(texts[:1]) == [datetime.datetime(2023, 12, 6, 23, 58)]
