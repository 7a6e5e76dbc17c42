//! `spinexr readings`: what people marked in the web reader, as data to train on. One subcommand a file.

mod agreement;
mod export;
mod import;

use crate::Global;
use crate::exit::{CommandError, CommandResult, usage};
use anyhow::Context;
use clap::Subcommand;
use spinexr_serve::Config;
use spinexr_serve::store::Store;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr readings agreement --data spinexr-serve           kappa and matched boxes of every two readers\n  \
    spinexr readings export --data spinexr-serve --reader dr-a -o readings\n  \
    spinexr train configs/improved/retinanet_r50.toml --set data.dir=readings\n  \
    spinexr readings import --data spinexr-serve --reader dr-a corrected/*.dcm\n\n\
    With the job store in PostgreSQL, or the films in a folder of their own, --config names the service's configuration in\n\
    place of --data. The service may go on running meanwhile.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Write complete readings and their films as a data set
    Export(export::Args),
    /// Compare every two readers on the films that both have completed
    Agreement(agreement::Args),
    /// Take structured reports that were corrected elsewhere over as readings
    Import(import::Args),
}

/// Where readings are.
#[derive(clap::Args)]
#[group(required = true)]
struct Source {
    /// Data folder of the service
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration of the service, which names its data
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    /// The service's configuration, as far as its data goes.
    fn config(&self) -> Result<Config, CommandError> {
        let mut config = match &self.config {
            Some(path) => Config::load(path).with_context(|| path.display().to_string()).map_err(usage)?,
            None => Config::default(),
        };
        config.data_dir = self.data.clone().unwrap_or(config.data_dir);
        Ok(config)
    }

    /// Its job store; there must be one.
    fn store(&self, config: &Config) -> Result<Store, CommandError> {
        let path = config.data_dir.join("jobs.sqlite");
        if config.store.postgres.is_none() && !path.is_file() {
            let error = anyhow::anyhow!(
                "{}: no such file; expected the data folder of `spinexr serve`",
                path.display()
            );
            return Err(usage(error));
        }
        let store = Store::of(config).with_context(|| config.data_dir.display().to_string())?;
        Ok(store)
    }
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Export(args) => export::run(&args, global),
        What::Agreement(args) => agreement::run(&args, global),
        What::Import(args) => import::run(&args, global),
    }
}
