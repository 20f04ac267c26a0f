"""The plans of an audit: one for each way of training that a consortium may choose.

They are plans like any other, proposed by the same code, but of little epsilon, so that a leak stands out, and with a
clip that every canary reaches. The encoder is the one under which a canary is a single column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jobs.plan import DISTRIBUTED, DP_SGD, LOCAL, RIDGE, Plan
from jobs.proposal import Wish, make_plan
from privacy.accounting import epsilon
from site_packages.privacy_audit_canaries import CODES, canary_encoder

DELTA = 1e-7  # small beside 1 / canaries, or it would blur the attack's p-value
L2_CLIP_NORM = 0.2  # a canary's gradient is more than four times as long, so that it is always clipped
_STEP = 0.005  # how far one canary moves its own weight in a round; far from saturation


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One way of training to audit.

    Attributes:
        canaries: made; half of them take part.
        lost_round: a round from which the last hospital is kept away, if dropouts are allowed for.
    """

    name: str
    description: str
    hospitals: int = 4
    dropouts: int = 0
    features: int = 8192
    canaries: int = 2000
    rounds: int = 8
    sampling_prob: float = 1.0
    noise_multiplier: float = 10.0
    feature_mean_noise_multiplier: float | None = None
    momentum: float = 0.0
    noise_mode: str = DISTRIBUTED
    local_steps: int = 1
    estimator: str = DP_SGD
    lost_round: int | None = None

    def plan(self) -> Plan:
        """The plan of this configuration; its epsilon is what the accountant says, rounded up."""
        sites = tuple(f"hospital-{number:02}" for number in range(1, self.hospitals + 1))
        wish = Wish(
            name="empirical audit",
            consortium="empirical audit",
            label_space=CODES,
            epsilon=None,
            sites=sites,
            nominal_patients=10 * self.canaries,
            delta=DELTA,
            rounds=self.rounds,
            sampling_prob=self.sampling_prob,
            estimator=self.estimator,
            noise_mode=self.noise_mode,
            local_steps=self.local_steps,
            encoder=canary_encoder(self.features).config(),
            dropouts=self.dropouts,
        )
        bare = make_plan(wish)
        plan = replace(
            bare,
            noise_multiplier=self.noise_multiplier,
            feature_mean_noise_multiplier=self.feature_mean_noise_multiplier,
            epsilon=1.0,
        )
        if self.estimator == DP_SGD:
            plan = replace(
                plan,
                l2_clip_norm=L2_CLIP_NORM,
                optimiser={
                    **bare.optimiser,
                    "momentum": self.momentum,
                    "learning_rate": _STEP * bare.expected_batch,
                    "averaged_rounds": 0,
                },
            )
        return replace(plan, epsilon=math.ceil(epsilon(plan.training_events(), DELTA) * 1e4) / 1e4)


def full() -> tuple[Configuration, ...]:
    """What `zegel privacy audit` runs."""
    return (
        Configuration(
            name="everybody",
            description="every patient in every round",
            canaries=4000,
            features=16384,
        ),
        Configuration(
            name="sampled",
            description="a quarter of the patients in each round, by Poisson sampling",
            rounds=24,
            sampling_prob=0.25,
            noise_multiplier=4.5,
        ),
        Configuration(
            name="centred",
            description="features centred by a released mean, momentum, and a hospital that drops out of a round",
            hospitals=5,
            dropouts=1,
            noise_multiplier=12.0,
            feature_mean_noise_multiplier=12.0,
            momentum=0.5,
            lost_round=4,
        ),
        Configuration(
            name="local",
            description="local noise: every hospital adds all of it, in two steps of its own a round",
            features=4096,
            canaries=1000,
            noise_multiplier=12.0,
            momentum=0.5,
            noise_mode=LOCAL,
            local_steps=2,
        ),
        Configuration(
            name="ridge",
            description="the closed-form estimator: one sum of statistics over all patients",
            features=1024,
            canaries=800,
            rounds=1,
            noise_multiplier=3.5,
            estimator=RIDGE,
        ),
    )


def quick() -> tuple[Configuration, ...]:
    """Smaller, with less power; finds gross faults in seconds."""
    everybody, sampled, centred, local, ridge = (replace(each, features=2048, canaries=500) for each in full())
    return (
        replace(everybody, rounds=6),
        replace(sampled, rounds=12, noise_multiplier=3.5),
        replace(centred, rounds=6),
        replace(local, rounds=4),
        replace(ridge, features=512, canaries=300),
    )
