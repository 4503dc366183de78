import numpy as np

from schemas.policy import Reviewers
from tasks.contract.certified_policy import Basis, make_policy, not_sampled, policy_groups
from tasks.contract.certify import certify_campaign
from tasks.contract.judge import Reviewed, judge
from tasks.contract.looks import read_looks
from tasks.contract.rounds import labels_of_round, last_round
from tasks.route.policy import read_policy


def test_classes_that_were_not_sampled_are_a_group_that_accepts_nothing(campaigned):
    campaigned.fitted().sampled()
    certified = certify_campaign(campaigned.campaign)
    assert certified.not_sampled == ()
    reviews = campaigned.reviews
    found = last_round(reviews.plans)
    of_round, (look,) = labels_of_round(reviews, found), read_looks(reviews.workspace, reviews.run)
    cats = found.certify.filter([name == "cat" for name in found.certify["class_name"].to_pylist()])
    wrong = reviews.answers.wrong_of(cats["label_id"]) != 0
    sample = Reviewed(np.asarray(cats["p_correct"].to_numpy(), np.float64), wrong, ("cat",) * len(wrong))
    judged = judge(sample, found.plan.groups, of_round.candidates, reviews.promise, 0.1)
    assert not_sampled(judged) == ("dog",)
    assert [name for group in policy_groups(judged) for name in group.classes] == ["cat"]
    basis = Basis(reviews, found, of_round, look, Reviewers(), False, "0")
    policy = make_policy(basis, judged, look.created)
    last = read_policy(reviews.workspace, policy.version, campaigned.campaign.classes).groups[-1]
    assert (last.classes, last.p_correct) == (("dog",), None)
    assert "no label of these classes was drawn" in last.certificate.refusal
