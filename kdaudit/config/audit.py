"""The keys of audit.yaml as frozen pydantic models; each field's docstring is its help.

Paths are plain strings, since each may also name a model or dataset on the Hugging Face hub; a local
one is absolute after loading (`kdaudit.config.paths`). A check of ours raises MisfitError with
the key, relative to its section, as in `students.0.name`, so that the loader can say the full key and its
line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from kdaudit.config.endpoint import (
    CONCURRENCY,
    TIMEOUT,
    Endpoint,
    ModelPath,
    VariableName,
    is_url,
)
from kdaudit.config.paths import LocalFile, PathOrId
from kdaudit.config.yaml.misfit import MisfitError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.ASCII)


def _portable(name: str) -> str:
    """Refuse a folder's name that some systems keep for a device or cut short: runs are copied to others."""
    if _DEVICE.fullmatch(name) or name.endswith("."):
        raise MisfitError(f"{name!r} cannot name a folder on Windows", fix="choose another name")
    return name


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN), AfterValidator(_portable)]
"""A name that becomes a folder: letters, digits, dot, underscore and dash, at most 64."""

DType = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["vllm", "transformers"]
LabelKind = Literal["student", "easy_core", "teacher"]
FeatureSet = Literal["all", "paper"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]

RESERVED_NAMES = ("teacher", "baseline", "holdout")
"""Names of models that a student cannot take; `baseline-N` is reserved too, and `base` where one is named."""


def check_names(names: Sequence[str], reserved: Sequence[str]) -> None:
    """Refuse names of students that are reserved, or that differ in case alone: they become folders.

    Raises:
        MisfitError: one is.
    """
    seen: set[str] = set()
    for row, written in enumerate(names):
        name = written.lower()
        if name in reserved or name.startswith("baseline-"):
            raise MisfitError(
                f"{written!r} is reserved",
                fix=f"choose a name other than {', '.join(reserved)} and baseline-N",
                key=f"students.{row}.name",
            )
        if name in seen:
            raise MisfitError(
                f"{written!r} is used twice",
                fix="give each student its own name (upper and lower case do not count)",
                key=f"students.{row}.name",
            )
        seen.add(name)


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        strict=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def _path_alone(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Let a bare string stand for `{path: ...}`."""
    return {"path": value} if isinstance(value, str) else value


_OF_ANSWERS = ("prompt", "response", "messages", "template")
"""Keys of a corpus of prompts and answers."""
_MEANT = {"prompt": "prompt", "response": "answer"}

Column = Annotated[str, Field(min_length=1)]


def _in_list(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Let one column stand for a list of one."""
    return [value] if isinstance(value, str) else value


ColumnList = Annotated[tuple[Column, ...], Field(min_length=1, strict=False)]
Prompts = Annotated[ColumnList, BeforeValidator(_in_list, json_schema_input_type=Column | ColumnList)]


class CorpusConfig(Section):
    """Where text comes from and how it is cut into examples."""

    path: PathOrId
    """A Hugging Face dataset id, or a local parquet, jsonl(.gz/.xz/.zst), csv or txt file, a saved
    dataset, or a folder of shards."""
    name: str | None = None
    """The dataset's configuration, for datasets that have several."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset."""
    split: Annotated[str, Field(min_length=1)] = "train"
    """The split to read."""
    text: Column = "text"
    """The column that holds the text, where rows are plain text."""
    prompt: Prompts | None = None
    """In place of `text`, for rows that ask and answer: the column of the prompt, or several, whose texts are
    joined by a line break. They may hold messages, as `messages` does."""
    response: Column | None = None
    """With `prompt`: the column of the answer."""
    messages: Column | None = None
    """In place of `text`, for chats: the column that holds a list of messages, each with role and content, or
    with from and value. Every assistant message with text is an example."""
    template: Literal["auto", "none"] | LocalFile = "auto"
    """How prompts and answers become one text. auto: the teacher's own chat template, or none where it has
    none and rows are `prompt` and `response`; none: the answer's text right behind the prompt's; or a file
    that holds a chat template in Jinja."""
    id: str | None = None
    """A column that names documents; else they are named by row number."""
    documents: Literal["file", "line"] = "line"
    """For txt: whether a document is a whole file or a line."""
    window: Annotated[int, Field(ge=2)] = 256
    """Tokens an example holds at most; documents are cut into windows, never joined. Of prompts and answers:
    tokens of the answer that an example holds at most; the prompt is whole, as far as the models can read."""
    stride: PositiveInt | None = None
    """Tokens from one window's start to the next; null means `window`, so windows do not overlap."""
    limit: PositiveInt | None = None
    """Distinct examples to audit at most: a seeded sample of the whole corpus. `kdaudit distill` trains on
    the same sample."""

    @property
    def has_answers(self) -> bool:
        """Whether its rows ask and answer, and are not plain text."""
        return self.prompt is not None or self.messages is not None

    @property
    def where(self) -> tuple[object, ...]:
        """What it reads: two sections that are equal in this are the same text."""
        return (self.path, self.name, self.revision, self.split, *self.columns)

    @property
    def columns(self) -> tuple[object, ...]:
        """What of a row it reads."""
        return (self.text, self.prompt, self.response, self.messages)

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        named = [key for key in ("text", "prompt", "messages") if self._names(key)]
        if len(named) > 1:
            raise MisfitError(
                f"cannot stand beside {named[0]}: a row is plain text, a prompt with its answer, or a chat",
                fix=f"keep {named[0]} or {named[1]}",
                key=named[1],
            )
        for key, other in (("prompt", "response"), ("response", "prompt")):
            if getattr(self, key) is not None and getattr(self, other) is None:
                raise MisfitError(
                    f"needs {other}", fix=f"name the column of the {_MEANT[other]}, too", key=key
                )
        if self.template == "none" and self.messages is not None:
            raise MisfitError(
                "is for prompt and response, and a chat takes a chat template",
                fix="set it to auto, or to a file that holds one",
                key="template",
            )
        self._every_key_has_an_effect()
        return self

    def _names(self, key: str) -> bool:
        """Whether the section names a column under this key, and does not leave it at its default."""
        return key in self.model_fields_set if key == "text" else getattr(self, key) is not None

    def _every_key_has_an_effect(self) -> None:
        idle = ("stride", "documents") if self.has_answers else ("template",)
        for key in idle:
            if getattr(self, key) != type(self).model_fields[key].default:
                kind = "prompts and answers" if self.has_answers else "plain text"
                raise MisfitError(f"has no effect on {kind}", fix="remove it", key=key)

    @model_serializer(mode="wrap")
    def _own_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the keys of other layouts, so that what is written can be read again."""
        values: dict[str, Any] = handler(self)
        other = ("text",) if self.has_answers else _OF_ANSWERS
        return {key: value for key, value in values.items() if key not in other}


class AdapterBase(Section):
    """The model that an adapter was trained on."""

    path: PathOrId
    """A local folder in Hugging Face form, or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""


AdapterBaseRef = Annotated[
    AdapterBase, BeforeValidator(_path_alone, json_schema_input_type=PathOrId | AdapterBase)
]


class ModelConfig(Section):
    """One model: a local folder, a Hugging Face model id, or a model behind a completions endpoint."""

    path: ModelPath
    """A local folder in Hugging Face form, or a hub id: whole weights, or a LoRA adapter as PEFT saves it. Or
    the address of an OpenAI-compatible completions endpoint, as in http://localhost:8000/v1."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    base: AdapterBaseRef | None = None
    """For an adapter: the model that it was trained on; null takes the one that its adapter_config.json
    names."""
    match_by: Literal["auto", "text"] = "auto"
    """What is compared: auto takes tokens where the model reads text as the teacher's tokens, else text; text
    takes the text that the model writes in any case, as for documents that both read differently."""
    dtype: DType | None = None
    """Overrides `extraction.dtype` for this model."""
    tensor_parallel: PositiveInt | None = None
    """Overrides `extraction.tensor_parallel` for this model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Of an endpoint: the model's name there."""
    tokenizer: PathOrId | None = None
    """Of an endpoint: a folder or hub id with the model's tokenizer; null takes that of the audit's first
    model with weights."""
    api_key_env: VariableName | None = None
    """Of an endpoint: the environment variable that holds its key. The key itself never stands in a file."""
    concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    """Of an endpoint: requests at a time; null takes 16."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Of an endpoint: seconds to wait for the next bytes of an answer; null takes 120."""

    @model_validator(mode="after")
    def _keys_fit_the_path(self) -> Self:
        if is_url(self.path):
            of_weights = {key: getattr(self, key) for key in _OF_WEIGHTS}
            self._refuse(of_weights, "goes with a model's weights, and path is an endpoint", "remove it")
            if self.model is None:
                raise MisfitError(
                    "is required with an endpoint", fix="name the model as its server does", key="model"
                )
        else:
            of_endpoint = {key: getattr(self, key) for key in _OF_ENDPOINT}
            self._refuse(
                of_endpoint,
                "goes with an endpoint, and path is none",
                "remove it, or write path as http://HOST:PORT/v1",
            )
        return self

    def _refuse(self, settings: dict[str, object], what: str, fix: str) -> None:
        for key, value in settings.items():
            if value:
                raise MisfitError(what, fix=fix, key=key)

    @property
    def endpoint(self) -> Endpoint | None:
        """How the model is asked, if it is behind an endpoint."""
        if not is_url(self.path):
            return None
        return Endpoint(
            self.path,
            self.model or "",
            self.api_key_env,
            self.concurrency or CONCURRENCY,
            self.timeout or TIMEOUT,
        )


_OF_WEIGHTS = ("revision", "base", "dtype", "tensor_parallel", "trust_remote_code")
_OF_ENDPOINT = ("model", "tokenizer", "api_key_env", "concurrency", "timeout")
"""Keys of a model that go with one kind of path."""


ModelRef = Annotated[
    ModelConfig, BeforeValidator(_path_alone, json_schema_input_type=ModelPath | ModelConfig)
]
CorpusRef = Annotated[
    CorpusConfig, BeforeValidator(_path_alone, json_schema_input_type=PathOrId | CorpusConfig)
]


class StudentConfig(ModelConfig):
    """A distilled model under audit."""

    name: Name
    """The student's name in results and reports, and its folder in the run directory."""
    kd: Literal["soft", "hard"] | None = None
    """How it was distilled: soft (logit-level) or hard (sequence-level)."""


def one_or_many(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Let one baseline stand for a list of one."""
    return value if value is None or isinstance(value, list | tuple) else [value]


ModelRefs = Annotated[tuple[ModelRef, ...], Field(min_length=1, strict=False)]


Baselines = Annotated[
    ModelRefs | None, BeforeValidator(one_or_many, json_schema_input_type=ModelRef | ModelRefs | None)
]


class ModelSet(Section):
    """Models of one family that are measured on one corpus."""

    teacher: ModelRef | None
    """The model that the students were distilled from; null where its weights are not available. Then nothing
    is known of what students inherit."""
    baseline: Baselines = None
    """A model of the student's size, fine-tuned on the corpus without a teacher; or a list, one per seed."""
    students: Annotated[tuple[StudentConfig, ...], Field(strict=False)] = ()
    """The distilled models."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        base = tuple(self._untouched())
        check_names([student.name for student in self.students], (*RESERVED_NAMES, *base))
        return self

    def by_key(self) -> dict[str, ModelConfig]:
        """Every model under its dotted key: teacher, baselines, base, students."""
        baselines = self.baseline or ()
        keys = ["baseline"] if len(baselines) == 1 else [f"baseline.{row}" for row in range(len(baselines))]
        students = {f"students.{row}": student for row, student in enumerate(self.students)}
        controls = {**dict(zip(keys, baselines, strict=True)), **self._untouched()}
        teacher = {} if self.teacher is None else {"teacher": self.teacher}
        found = {**teacher, **controls, **students}
        return {f"models.{key}": model for key, model in found.items()}

    def _untouched(self) -> dict[str, ModelConfig]:
        """The model that baseline and students started from, under its key; empty where none is named."""
        return {}


class ModelsConfig(ModelSet):
    """The models of an audit."""

    base: ModelRef | None = None
    """The untouched model that baseline and students started from: what it completes it knew before it was
    trained on this corpus."""
    students: Annotated[tuple[StudentConfig, ...], Field(min_length=1, strict=False)]
    """The distilled models."""

    def _untouched(self) -> dict[str, ModelConfig]:
        return {} if self.base is None else {"base": self.base}


class ExtractionBase(Section):
    """How models are asked to continue prefixes."""

    engine: EngineName | None = None
    """What runs the models."""
    prefix_tokens: NonNegativeInt = 50
    """Tokens of an example that the model is given: 50 where it is not set. Of prompts and answers: tokens of
    the answer that it is given behind the prompt, 0 where it is not set."""
    suffix_tokens: Annotated[int, Field(ge=1, le=32767)] = 50
    """Tokens that greedy decoding must reproduce for an example to count as memorized."""
    min_suffix_tokens: PositiveInt | None = None
    """For prompts and answers: a shorter answer is reproduced as far as it goes, if it has so many tokens;
    null means `suffix_tokens`."""
    bos: Literal["auto", "always", "never"] = "auto"
    """BOS token before the prefix; auto does what each model's own tokenizer does."""
    dtype: DType = "auto"
    """Number format of the weights while extracting; auto takes the model's own."""
    tensor_parallel: PositiveInt = 1
    """GPUs that share one model."""

    @property
    def least_tokens(self) -> int:
        """Tokens of the shortest window, or answer, that gives an example."""
        return self.prefix_tokens + (self.min_suffix_tokens or self.suffix_tokens)

    def of(self, corpus: CorpusConfig) -> Self:
        """The same for a kind of corpus, whose defaults differ.

        Raises:
            MisfitError: a setting has no effect on it, or cannot be.

        """
        if not corpus.has_answers:
            self._fits_text()
            return self
        if (self.min_suffix_tokens or 1) > self.suffix_tokens:
            raise MisfitError(
                f"is above extraction.suffix_tokens = {self.suffix_tokens}",
                fix="lower it, or raise that",
                key="extraction.min_suffix_tokens",
            )
        is_set = "prefix_tokens" in self.model_fields_set
        return self if is_set else self.model_copy(update={"prefix_tokens": 0})

    def _fits_text(self) -> None:
        if self.prefix_tokens == 0:
            raise MisfitError(
                "0 is out of range",
                fix="give more than 0: of plain text a model must be given something",
                key="extraction.prefix_tokens",
            )
        if self.min_suffix_tokens is not None:
            raise MisfitError(
                "has no effect on plain text", fix="remove it", key="extraction.min_suffix_tokens"
            )

    @model_serializer(mode="wrap")
    def _own_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not set and earlier versions did not have."""
        values: dict[str, Any] = handler(self)
        if self.min_suffix_tokens is None:
            values.pop("min_suffix_tokens", None)
        return values


_KINDS = {True: "prompts and answers", False: "plain text"}


def fit_extraction(
    config: BaseModel,
    extraction: ExtractionBase,
    corpus: CorpusConfig,
    others: Mapping[str, CorpusConfig | None],
) -> None:
    """Give a configuration the extraction's defaults for its kind of corpus, and check that windows hold it.

    Args:
        config: takes it.
        extraction: its section.
        corpus: its corpus.
        others: the texts beside the corpus, by key.

    Raises:
        MisfitError: they do not, a setting does not fit the corpus, or a text is of another kind.

    """
    extraction = extraction.of(corpus)
    object.__setattr__(config, "extraction", extraction)  # a frozen model, which is still being made
    need = extraction.prefix_tokens + extraction.suffix_tokens
    for key, one in {"corpus": corpus, **others}.items():
        if one is not None and one.has_answers != corpus.has_answers:
            raise MisfitError(
                f"is {_KINDS[one.has_answers]}, and the corpus is {_KINDS[corpus.has_answers]}",
                fix="name a text whose rows are of the corpus's kind",
                key=f"{key}.path",
            )
        if one is not None and one.window < need:
            raise MisfitError(
                f"{one.window} tokens cannot hold extraction.prefix_tokens + "
                f"extraction.suffix_tokens = {need}",
                fix="raise the window or lower those",
                key=f"{key}.window",
            )


class ExtractionConfig(ExtractionBase):
    """How models are asked to continue prefixes in an audit."""

    engine: EngineName = "vllm"
    """vllm is the fast one; transformers is the slower reference that runs anywhere."""


class NearVerbatimConfig(Section):
    """Near-verbatim extraction: greedy continuations that differ from the suffix in a few tokens."""

    max_edit_distance: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Highest edit distance of the continuation, in tokens over suffix_tokens, that counts as exposed."""


class AttacksConfig(Section):
    """Attacks beside exact greedy extraction, which always runs; null leaves one out."""

    near_verbatim: NearVerbatimConfig | None = NearVerbatimConfig()
    """Continuations that are nearly the suffix."""


class PredictorBase(Section):
    """How examples are scored by their risk of being memorized."""

    enabled: bool = True
    """Whether to score examples by their risk of being memorized."""
    labels: str
    """The prediction target."""
    student: str | None = None
    """The student whose memorized examples are the labels; null takes the first."""
    features: FeatureSet = "all"
    """What risk is predicted from: all (both models on the suffix alone, where memorization lies, its
    occurrences and zlib entropy), or the paper's four, taken over whole windows."""
    trials: PositiveInt = 100
    """Stratified resampled trials that the figures are averaged over."""
    recall: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    """Share of the positives that the threshold must flag."""
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Confidence of that recall guarantee."""


class PredictorConfig(PredictorBase):
    """How an audit scores examples by their risk of being memorized."""

    labels: LabelKind = "student"
    """The prediction target: what a student memorizes, what teacher and baseline both
    memorize (easy_core), or what the teacher memorizes."""


def tensor_parallel_by_key(models: ModelSet, extraction: ExtractionBase) -> dict[str, int]:
    """GPUs that share one model, wherever the configuration says so."""
    asked = {"extraction.tensor_parallel": extraction.tensor_parallel}
    own = {f"{key}.tensor_parallel": model.tensor_parallel for key, model in models.by_key().items()}
    return asked | {key: count for key, count in own.items() if count is not None}


_NEED_TEACHER = ("max_inheritance_rate", "max_excess_inheritance", "max_inherited")
"""Limits that cannot be judged without a teacher."""
_NEED_BASELINE = (*_NEED_TEACHER, "max_ratio_to_baseline")
"""Limits that cannot be judged without a baseline."""


class GateConfig(Section):
    """Limits that decide the exit code; each is optional."""

    max_rate: Share | None = None
    """Highest memorization rate of a student."""
    max_inheritance_rate: Share | None = None
    """Highest share of teacher-specific examples that a student inherits."""
    max_excess_inheritance: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Highest `excess_inheritance` of a student: its share of what the teacher memorizes and one baseline
    misses, minus the share that the other baselines hold. With a single baseline it is inconclusive."""
    max_inherited: NonNegativeInt | None = None
    """Highest count of inherited examples (a census only: not with `corpus.limit`)."""
    max_ratio_to_baseline: Annotated[float, Field(ge=0.0)] | None = None
    """Highest ratio of a student's memorization rate to the baseline's."""
    students: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """Students that the gate looks at; null means all."""


class ReportConfig(Section):
    """What the HTML reports show."""

    title: str | None = None
    """Heading of the report; null takes `name`."""
    max_examples: NonNegativeInt = 200
    """Leaked examples shown at most, worst first."""
    document_ids: bool = False
    """Whether the public report may name documents."""


class AuditConfig(Section):
    """audit.yaml: one audit of a teacher, its students and the training corpus."""

    name: Name
    """Names the audit and its run directory, runs/NAME."""
    corpus: CorpusRef
    """The training corpus."""
    holdout: CorpusRef | None = None
    """Text that no model was trained on: gives the false-positive floor and the perplexities."""
    models: ModelsConfig
    """Teacher, baseline and students."""
    generated: CorpusRef | None = None
    """Text that the teacher wrote, such as the corpus of hard KD: how much of it each model repeats."""
    extraction: ExtractionConfig = ExtractionConfig()
    """How memorization is measured."""
    attacks: AttacksConfig = AttacksConfig()
    """What else is tried to get training text out of the models."""
    predictor: PredictorConfig = PredictorConfig()
    """The risk predictor."""
    gate: GateConfig = GateConfig()
    """Limits that decide the exit code."""
    report: ReportConfig = ReportConfig()
    """What the reports show."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of every random choice."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        others = {"holdout": self.holdout, "generated": self.generated}
        fit_extraction(self, self.extraction, self.corpus, others)
        self._gate_can_be_judged()
        self._labels_can_be_had()
        self._students_exist()
        self._engine_can_share_out()
        self._holdout_is_other_text()
        self._generated_is_other_text()
        return self

    def _gate_can_be_judged(self) -> None:
        gate = self.gate
        if gate.max_inherited is not None and self.corpus.limit is not None:
            raise MisfitError(
                "a count cannot be judged on a sample (corpus.limit is set)",
                fix="use gate.max_inheritance_rate, or remove corpus.limit",
                key="gate.max_inherited",
            )
        if self.models.teacher is None:
            self._refuse_limits(_NEED_TEACHER, "needs models.teacher, which is null", "name the teacher")
        if self.models.baseline is None:
            self._refuse_limits(_NEED_BASELINE, "needs models.baseline", "name a baseline")

    def _refuse_limits(self, keys: Sequence[str], what: str, fix: str) -> None:
        for key in keys:
            if getattr(self.gate, key) is not None:
                raise MisfitError(what, fix=f"{fix} or remove this limit", key=f"gate.{key}")

    def _labels_can_be_had(self) -> None:
        labels = self.predictor.labels
        if self.models.teacher is None and self.predictor.enabled and labels != "student":
            raise MisfitError(
                f"{labels} needs models.teacher, which is null",
                fix="name the teacher or remove predictor.labels",
                key="predictor.labels",
            )

    def _students_exist(self) -> None:
        names = [student.name for student in self.models.students]
        wanted = [("predictor.student", self.predictor.student)]
        wanted += [(f"gate.students.{row}", name) for row, name in enumerate(self.gate.students or ())]
        for key, name in wanted:
            if name is not None and name not in names:
                raise MisfitError(
                    f"there is no student {name!r}", fix=f"choose from {', '.join(names)}", key=key
                )

    def _engine_can_share_out(self) -> None:
        if self.extraction.engine == "vllm":
            return
        for key, count in tensor_parallel_by_key(self.models, self.extraction).items():
            if count > 1:
                raise MisfitError(
                    f"the {self.extraction.engine} engine runs a model on one device",
                    fix="set it to 1, or extraction.engine to vllm",
                    key=key,
                )

    def _holdout_is_other_text(self) -> None:
        if self.holdout and self.holdout.where == self.corpus.where:
            raise MisfitError(
                "is the corpus itself",
                fix="name text that no model has seen, or remove holdout",
                key="holdout.path",
            )

    def _generated_is_other_text(self) -> None:
        for key, other in (("corpus", self.corpus), ("holdout", self.holdout)):
            if self.generated and other and self.generated.where == other.where:
                raise MisfitError(
                    f"is the {key} itself",
                    fix="name the text that the teacher wrote, or remove generated",
                    key="generated.path",
                )
