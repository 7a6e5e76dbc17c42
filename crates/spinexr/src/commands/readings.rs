//! `spinexr readings`: what people marked in the web reader, as data to train on. One subcommand a file.

mod agreement;
mod export;
mod import;

use crate::Global;
use crate::exit::{CommandError, CommandResult, usage};
use anyhow::Context;
use clap::Subcommand;
use spinexr_serve::spool::stored_file;
use spinexr_serve::store::Store;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    spinexr readings agreement --data spinexr-serve           kappa and matched boxes of every two readers\n  \
    spinexr readings export --data spinexr-serve --reader dr-a -o readings\n  \
    spinexr train configs/improved/retinanet_r50.toml --set data.dir=readings\n  \
    spinexr readings import --data spinexr-serve --reader dr-a corrected/*.dcm\n\n\
    The service may go on running meanwhile.")]
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
struct Source {
    /// Data folder of the service
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

impl Source {
    /// Its job store; there must be one.
    fn store(&self) -> Result<Store, CommandError> {
        let path = self.store_path();
        if !path.is_file() {
            let error = anyhow::anyhow!(
                "{}: no such file; expected the data folder of `spinexr serve`",
                path.display()
            );
            return Err(usage(error));
        }
        let store = Store::open(&path).with_context(|| path.display().to_string())?;
        Ok(store)
    }

    fn store_path(&self) -> PathBuf {
        self.data.join("jobs.sqlite")
    }

    /// A file of the spool.
    fn file(&self, stored: &str) -> PathBuf {
        stored_file(&self.data, stored)
    }
}

pub fn run(args: Args, global: &Global) -> CommandResult {
    match args.what {
        What::Export(args) => export::run(&args, global),
        What::Agreement(args) => agreement::run(&args, global),
        What::Import(args) => import::run(&args, global),
    }
}
