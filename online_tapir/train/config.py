"""Training settings: each field is a flag of `online-tapir train` or `online-tapir distil`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

Kind = Literal["adamw", "muon"]  # of optimiser
Positive = Number(gte=1)
Share = Number(gte=0, lte=1)
Rate = Number(gt=0, lte=1)
VALIDATION_SEED = 1_000_000_000  # of the first validation clip; training seeds stay below
Seed = Number(gte=0, lt=VALIDATION_SEED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of one training stage."""

    steps: Annotated[int, Parameter(help="Optimiser steps of this stage.", validator=Positive)] = 20_000
    size: Annotated[
        int,
        Parameter(
            help="Side of the training clips in pixels, a multiple of 8.", validator=Number(gte=64, lte=1024, modulo=8)
        ),
    ] = 128
    frames: Annotated[int, Parameter(help="Frames per clip.", validator=Number(gte=2))] = 6
    clips: Annotated[int, Parameter(help="Clips per step.", validator=Positive)] = 4
    points: Annotated[int, Parameter(help="Points tracked per clip.", validator=Positive)] = 40
    fastest: Annotated[
        float,
        Parameter(help="Clips run at up to this multiple of the validation speed.", validator=Number(gte=1, lte=100)),
    ] = 3.0
    vary: Annotated[
        float,
        Parameter(
            help="Width and height of each batch are up to this many times larger or smaller than `size`.",
            validator=Number(gte=1, lte=2),
        ),
    ] = 1.0
    turned: Annotated[
        float,
        Parameter(help="Share of clips that also turn by any angle and grow or shrink up to 4 times.", validator=Share),
    ] = 0.0
    matching: Annotated[
        int,
        Parameter(
            help="Pairs of turned and scaled views of photographs per step, for the features to match.",
            validator=Number(gte=0),
        ),
    ] = 0
    reuse: Annotated[
        int, Parameter(help="Steps that use each batch of clips, flipped and recoloured.", validator=Positive)
    ] = 3
    optimizer: Annotated[
        Kind,
        Parameter(help="adamw, or muon: Muon for matrices, with steps as large as AdamW's, and AdamW for the rest."),
    ] = "adamw"
    learning_rate: Annotated[float, Parameter(help="Peak learning rate.", validator=Rate)] = 1e-3
    final_rate: Annotated[
        float, Parameter(help="Share of the learning rate left at the end of the stage.", validator=Share)
    ] = 0.05
    cooldown: Annotated[
        float, Parameter(help="Share of the steps over which the learning rate falls.", validator=Share)
    ] = 0.25
    warmup: Annotated[int, Parameter(help="Steps over which the learning rate rises.", validator=Number(gte=0))] = 200
    weight_decay: Annotated[float, Parameter(help="Weight decay.", validator=Share)] = 1e-2
    average: Annotated[
        float, Parameter(help="Decay per step of the running average of the weights.", validator=Number(gte=0, lt=1))
    ] = 0.999
    seed: Annotated[
        int, Parameter(help="Seed of the first clip; later clips use the seeds after it.", validator=Seed)
    ] = 0
    bf16: Annotated[bool, Parameter(help="Compute the backbone in bfloat16, the rest in float32.", negative=())] = False
    freeze_backbone: Annotated[
        bool, Parameter(help="Train only what follows the backbone, and keep its features as they are.", negative=())
    ] = False
    compile: Annotated[
        bool,
        Parameter(help="Compile the backbone for faster steps: needs half a minute and a C++ compiler.", negative=()),
    ] = False
    validate_every: Annotated[int, Parameter(help="Steps between validations.", validator=Positive)] = 500
    checkpoint_every: Annotated[int, Parameter(help="Steps between checkpoints.", validator=Positive)] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilConfig:
    """Settings of backbone distillation; each field is a flag of `online-tapir distil`."""

    steps: Annotated[int, Parameter(help="Optimiser steps.", validator=Positive)] = 6_000
    pairs: Annotated[int, Parameter(help="Pairs of views per step.", validator=Positive)] = 8
    points: Annotated[int, Parameter(help="Points per pair.", validator=Positive)] = 192
    learning_rate: Annotated[float, Parameter(help="Peak learning rate of AdamW.", validator=Rate)] = 2e-3
    seed: Annotated[int, Parameter(help="Seed of the views.", validator=Seed)] = 0
    report_every: Annotated[int, Parameter(help="Steps between reports.", validator=Positive)] = 250
    checkpoint_every: Annotated[int, Parameter(help="Steps between checkpoints.", validator=Positive)] = 100
