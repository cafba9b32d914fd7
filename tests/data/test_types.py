from memr1_jax.data.types import Conversation, Question, Session, Stage, Turn


def _turns(number, count):
    return tuple(Turn("user", f"{number}.{i}", f"D{number}:{i}") for i in range(1, count + 1))


def _conversation(*places, **options):
    """Sessions of 3, 0 and 4 turns, and a question after each of the places."""
    sessions = tuple(Session(n, f"day {n}", _turns(n, c)) for n, c in ((1, 3), (2, 0), (3, 4)))
    questions = tuple(Question(f"q{i}", "", 0, (), i, after=p) for i, p in enumerate(places))
    return Conversation("c", ("user", "assistant"), sessions, questions, (), **options)


def _told(stages):
    return [
        (
            [(s.number, s.time, [turn.text for turn in s.turns]) for s in stage.sessions],
            [question.question for question in stage.questions],
        )
        for stage in stages
    ]


def test_everything_is_asked_at_the_end_by_default():
    conversation = _conversation(None, None)
    assert conversation.stages == (
        Stage((conversation.sessions[0], conversation.sessions[2]), conversation.questions),
    )


def test_a_question_meets_exactly_the_turns_before_it():
    conversation = _conversation(5, 2, None, 5, 0)
    assert _told(conversation.stages) == [
        ([], ["q4"]),
        ([(1, "day 1", ["1.1", "1.2"])], ["q1"]),
        ([(1, "day 1", ["1.3"]), (3, "day 3", ["3.1", "3.2"])], ["q0", "q3"]),
        ([(3, "day 3", ["3.3", "3.4"])], ["q2"]),
    ]
    # What has been read when a question is asked is a prefix of the dialogue.
    read = []
    for stage in conversation.stages:
        read += [turn for session in stage.sessions for turn in session.turns]
        assert tuple(read) == conversation.turns[: len(read)]
        assert all(question.after in (len(read), None) for question in stage.questions)


def test_what_follows_the_last_question_is_left_out():
    assert _told(_conversation(3).stages) == [([(1, "day 1", ["1.1", "1.2", "1.3"])], ["q0"])]
    assert _conversation().stages == ()


def test_a_question_about_nothing_is_still_asked():
    question = Question("q", "", 0, (), 0)
    conversation = Conversation("c", ("user", "assistant"), (), (question,), ())
    assert conversation.stages == (Stage((), (question,)),)


def test_who_has_a_memory():
    assert _conversation().owners == ("user", "assistant")
    assert _conversation(one_bank=True).owners == ("user",)
