use super::*;
use proptest::prelude::*;

const PAPER: &str = include_str!("../../../configs/paper/densenet121.toml");

fn parse(text: &str, sets: &[&str]) -> Result<Experiment, ConfigError> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Experiment::parse(text, Path::new("x.toml"), &sets)
}

fn message(text: &str, sets: &[&str]) -> String {
    parse(text, sets).unwrap_err().to_string()
}

#[test]
fn all_shipped_experiments_parse_and_survive_resolution() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let (mut seen, mut hold_outs) = (0, BTreeMap::new());
    for folder in ["paper", "improved", "demo", "spine_films", "synthetic"] {
        for entry in std::fs::read_dir(configs.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let experiment = Experiment::load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(parse(&experiment.to_toml(), &[]).unwrap(), experiment);
            assert_eq!(path.file_stem().unwrap().to_str(), Some(experiment.name.as_str()));
            let improved = folder != "paper";
            assert_eq!(experiment.protocol == Protocol::Improved, improved);
            // The models of a folder are used together: they must hold out the same studies.
            let data = &experiment.data;
            let hold_out = (data.validation_fraction, data.split_seed);
            assert_eq!(*hold_outs.entry(folder).or_insert(hold_out), hold_out, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 11, "{seen}");
}

#[test]
fn the_papers_recipe() {
    let e = parse(PAPER, &[]).unwrap();
    assert_eq!(e.optimiser.rule, Rule::Sgd { momentum: 0.9, nesterov: false });
    assert_eq!((e.optimiser.lr, e.optimiser.weight_decay, e.optimiser.weight_decay_norms), (0.01, 1e-4, 0.0));
    assert_eq!(e.training.clip, Clip::Value(1.0));
    assert_eq!((e.training.batch_size, e.schedule.total_steps), (32, 10_000));
    assert_eq!(e.schedule.decay, Decay::Steps { milestones: vec![5000, 7500], factor: 0.1 });
    assert!(!e.model.densenet(7).unwrap().final_relu, "the paper's head has no ReLU");
    assert_eq!(e.model.densenet(7).unwrap().num_classes, 1);
    assert!(e.model.detector(7).is_none());
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_neighbour() {
    for (right, wrong, hint) in [
        ("momentum = 0.9", "momentun = 0.9", "momentum"),
        ("weight_decay_norms = 0.0", "weight_decay_norm = 0.0", "weight_decay_norms"),
        ("batch_size = 32", "batchsize = 32", "batch_size"),
        ("[augment]", "[augmet]", "augment"),
        ("sgd = {", "sdg = {", "sgd"),
        ("flip = 0.5", "flipp = 0.5", "flip"),
    ] {
        let text = PAPER.replace(right, wrong);
        let key = wrong.trim_start_matches('[').split([' ', ']']).next().unwrap();
        let line = 1 + text.lines().position(|l| l.contains(key)).unwrap();
        let message = message(&text, &[]);
        assert!(message.starts_with(&format!("x.toml:{line}: ")), "{message}");
        assert!(message.contains(key) && message.contains(&format!("did you mean `{hint}`?")), "{message}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_says_what_was_expected_and_found() {
    let message = message(&PAPER.replace("seed = 1", "seed = \"one\""), &[]);
    assert!(
        message.starts_with("x.toml:") && message.contains("string \"one\"") && message.contains("u64"),
        "{message}"
    );
    let message = self::message(&PAPER.replace("seed = 1\n", ""), &[]);
    assert!(message.contains("missing field `seed`"), "{message}");
}

#[test]
fn overrides_apply_in_order() {
    let e = parse(
        PAPER,
        &[
            "optimiser.lr=0.5",
            "optimiser.lr = 2",
            "data.dir=elsewhere/films",
            "training.clip=none",
            "augment.gamma=0.3",
            "training.ema.decay=0.9",
            "model.input.height_px=256",
        ]
        .map(|s| if s.starts_with("training.ema") { "training.ema={decay=0.9,ramp_steps=0}" } else { s }),
    )
    .unwrap();
    assert_eq!(e.optimiser.lr, 2.0);
    assert_eq!(e.data.dir, Path::new("elsewhere/films"));
    assert_eq!(e.training.clip, Clip::None);
    assert_eq!(e.augment.unwrap().gamma, 0.3);
    assert_eq!(e.training.ema, Some(EmaConfig { decay: 0.9, ramp_steps: 0.0 }));
    assert_eq!(e.model.input.height_px, 256);
}

#[test]
fn an_override_that_fails_names_its_key() {
    let unknown = message(PAPER, &["optimizer.lr=1"]);
    assert!(
        unknown.contains("--set optimizer.lr=1") && unknown.contains("did you mean `optimiser.lr`?"),
        "{unknown}"
    );
    let kind = message(PAPER, &["training.batch_size=many"]);
    assert!(
        kind.contains("training.batch_size") && kind.contains("\"many\"") && kind.contains("usize"),
        "{kind}"
    );
    let deep = message(PAPER, &["seed.x=1"]);
    assert!(deep.contains("expected a table at `seed`, found a integer"), "{deep}");
    assert!(message(PAPER, &["seed"]).contains("expected key=value"));
}

#[test]
fn a_precision_is_f32_unless_it_is_said() {
    let absent = parse(PAPER, &[]).unwrap();
    assert_eq!(absent.training.precision, Precision::F32);
    assert!(!absent.to_toml().contains("precision"), "older runs resume");
    assert_eq!(parse(PAPER, &["training.precision=f32"]).unwrap(), absent);
    let bf16 = parse(PAPER, &["training.precision=bf16"]).unwrap();
    assert_eq!(bf16.training.precision, Precision::Bf16);
    let difference = bf16.first_difference(&absent).unwrap();
    assert_eq!(difference.0, "training.precision");
    let unknown = message(PAPER, &["training.precision=f16"]);
    assert!(unknown.contains("training.precision=f16") && unknown.ends_with("`f32` or `bf16`"), "{unknown}");
}

#[test]
fn ranges_are_checked_by_key() {
    for (set, key) in [
        ("optimiser.lr=0", "optimiser.lr"),
        ("optimiser.lr=nan", "optimiser.lr"),
        ("data.validation_fraction=1", "data.validation_fraction"),
        ("model.in_channels=1", "model.normalisation"),
        ("model.input.height_px=8", "model.input"),
        ("schedule.total_steps=0", "schedule.total_steps"),
        ("schedule.warmup_steps=20000", "schedule.warmup_steps"),
        ("schedule.decay.steps.milestones=[7,5]", "schedule.decay.steps.milestones"),
        ("training.batch_size=0", "training.batch_size"),
        ("training.accumulation=0", "training.accumulation"),
        ("training.eval_every=0", "training.eval_every"),
        ("training.checkpoint_every=0", "training.checkpoint_every"),
        ("training.clip={value=-1.0}", "training.clip"),
        ("training.max_minutes=-1.0", "training.max_minutes"),
        ("training.ema={decay=1.0,ramp_steps=0}", "training.ema.decay"),
        ("optimiser.rule={sgd={momentum=0.0,nesterov=true}}", "optimiser.rule.sgd.nesterov"),
        ("optimiser.rule={adamw={beta1=1.5,beta2=0.9,epsilon=1e-8}}", "optimiser.rule.adamw.beta1"),
        ("augment.flip=2", "augment"),
        ("name=../up", "name"),
        ("model.architecture=retinanet_mini", "model.final_relu"),
        ("model.finding_loss=0", "model.finding_loss"),
    ] {
        let message = message(PAPER, &[set]);
        assert!(message.starts_with(&format!("{key}: expected ")), "{set}: {message}");
        assert!(message.contains(", found "), "{message}");
    }
}

#[test]
fn findings_teach_classifiers_only() {
    let with = parse(PAPER, &["model.finding_loss=2"]).unwrap();
    assert_eq!(with.model.densenet(3).unwrap().num_classes, 1 + 3);
    assert_eq!(parse(PAPER, &[]).unwrap().model.densenet(3).unwrap().num_classes, 1);
    let detector = ["model.architecture=retinanet_mini", "model.finding_loss=2"];
    let text = message(&PAPER.replace("final_relu = false", ""), &detector);
    assert!(text.starts_with("model.finding_loss: expected a DenseNet beside it"), "{text}");
}

#[test]
fn norms_are_live_or_frozen_in_detectors_only() {
    use spinexr_models::DetectorConfig;
    use spinexr_models::resnet::NormMode;
    let text = PAPER.replace("final_relu = false", "");
    let norms = |sets: &[&str]| match parse(&text, sets).unwrap().model.detector(7) {
        Some(DetectorConfig::RetinaNet(config)) => config.backbone.norm,
        _ => panic!("a RetinaNet"),
    };
    assert_eq!(norms(&["model.architecture=retinanet_resnet18"]), NormMode::Frozen);
    assert_eq!(norms(&["model.architecture=retinanet_resnet18", "model.norms=live"]), NormMode::Live);
    let text = message(PAPER, &["model.norms=live"]);
    assert!(text.starts_with("model.norms: expected a detector beside it"), "{text}");
}

#[test]
fn a_difference_is_named_unless_it_is_free() {
    let before = parse(PAPER, &[]).unwrap();
    let now = parse(PAPER, &["optimiser.lr=0.02", "data.dir=moved", "training.max_minutes=5"]).unwrap();
    let (key, was, is) = now.first_difference(&before).unwrap();
    assert_eq!((key.as_str(), was.as_str(), is.as_str()), ("optimiser.lr", "0.01", "0.02"));
    let free = parse(PAPER, &["data.dir=moved", "data.cache_dir=too", "training.max_minutes=5"]).unwrap();
    assert_eq!(free.first_difference(&before), None);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        prop_assert!(parse(&text, &[]).is_err());
    }

    #[test]
    fn no_override_panics(set in "[a-z._=0-9{}\\[\\]\"]{0,40}") {
        let _ = parse(PAPER, &[&set]);
    }
}
