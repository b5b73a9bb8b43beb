"""Checks for the exercises of the notebooks, one file for each notebook; every check returns a Verdict."""

from diffkit.course.exercises.capstone import check_reveal_plan, check_unmasking_order
from diffkit.course.exercises.checks import Verdict
from diffkit.course.exercises.d3pm import check_kept, check_posterior, check_transition
from diffkit.course.exercises.data import check_chunks, check_entropy, check_rule_out
from diffkit.course.exercises.diffusion_lm import check_gradient_step, check_nearest, check_signal
from diffkit.course.exercises.evaluation import check_distinct, check_paired, check_variation, check_witten_bell
from diffkit.course.exercises.infilling_guidance import check_bayes, check_filling, check_guided
from diffkit.course.exercises.leaderboard import check_apart, check_least_valid, check_order_nats
from diffkit.course.exercises.model import check_block_parameters, check_masked_nll, check_turn
from diffkit.course.exercises.noise_schedules import (
    check_cosine_gamma,
    check_expected_masks,
    check_own_schedule,
    check_stay_masked,
)
from diffkit.course.exercises.objective import check_count_estimate, check_discrete_weight, check_report
from diffkit.course.exercises.plaid import check_alpha_sigma, check_own_evidence, check_step_weight
from diffkit.course.exercises.sampling import check_agree, check_nucleus, check_reveal_counts, check_tempered
from diffkit.course.exercises.scaling import check_compute, check_exponent, check_frontier
from diffkit.course.exercises.sedd import check_masking_rate, check_score, check_score_entropy
from diffkit.course.exercises.speed import check_calls, check_how_many, check_make_up, check_next_time
from diffkit.course.exercises.start_here import check_guess_cost, check_hidden_tokens, check_story_length
from diffkit.course.exercises.tinystories import check_bits, check_copied, check_own_loss
from diffkit.course.exercises.training import check_average, check_lr_scale, check_reach, check_stratified
from diffkit.course.exercises.variable_length import check_length, check_length_probs, check_sees

__all__ = [
    "Verdict",
    "check_agree",
    "check_apart",
    "check_average",
    "check_bayes",
    "check_bits",
    "check_block_parameters",
    "check_calls",
    "check_chunks",
    "check_compute",
    "check_copied",
    "check_cosine_gamma",
    "check_count_estimate",
    "check_discrete_weight",
    "check_distinct",
    "check_entropy",
    "check_expected_masks",
    "check_exponent",
    "check_filling",
    "check_frontier",
    "check_guess_cost",
    "check_guided",
    "check_masked_nll",
    "check_hidden_tokens",
    "check_how_many",
    "check_kept",
    "check_least_valid",
    "check_length",
    "check_length_probs",
    "check_make_up",
    "check_masking_rate",
    "check_nearest",
    "check_next_time",
    "check_nucleus",
    "check_order_nats",
    "check_own_evidence",
    "check_own_loss",
    "check_own_schedule",
    "check_paired",
    "check_posterior",
    "check_gradient_step",
    "check_reach",
    "check_report",
    "check_reveal_counts",
    "check_reveal_plan",
    "check_unmasking_order",
    "check_rule_out",
    "check_score",
    "check_score_entropy",
    "check_sees",
    "check_signal",
    "check_stay_masked",
    "check_step_weight",
    "check_story_length",
    "check_stratified",
    "check_alpha_sigma",
    "check_tempered",
    "check_transition",
    "check_turn",
    "check_variation",
    "check_lr_scale",
    "check_witten_bell",
]
