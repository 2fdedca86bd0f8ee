//! `utr serve` on the command line.
//!
//! Comes in: its flags. Goes out: [`Serve`], checked: an address that other machines reach needs a token.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::shared::{Stream, StreamArgs, TokenArgs, TokenChoice};
use crate::error::{Error, Result};

/// Most questions that may wait.
const MAX_QUEUE: usize = 256;

/// `utr serve`, as typed.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The source and the model.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// How answers are drawn where a request says nothing.
    #[command(flatten)]
    pub tokens: TokenArgs,
    /// Address and port to listen on, such as 127.0.0.1:8600; port 0 takes a free one. Other machines reach any but a loopback address: that needs --token-file
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8600")]
    pub listen: SocketAddr,
    /// A file with the bearer token that every request must carry
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Let requests name videos in this folder (file:///…); without it only the live window is served
    #[arg(long, value_name = "DIR")]
    pub allow_files: Option<PathBuf>,
    /// Questions that may wait beside the one being answered; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub queue: usize,
    /// Print a limit for systemd's MemoryMax= with these settings, in bytes, and exit; of the bundle only the manifest is read
    #[arg(long)]
    pub memory_max: bool,
}

/// `utr serve`, resolved.
#[derive(Clone, Debug)]
pub struct Serve {
    /// The source and the model.
    pub stream: Stream,
    /// How answers are drawn where a request says nothing.
    pub tokens: TokenChoice,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the token is.
    pub token_file: Option<PathBuf>,
    /// Where requests may name videos.
    pub allow_files: Option<PathBuf>,
    /// Questions that may wait.
    pub queue: usize,
    /// Whether systemd's journal reads standard error.
    pub journal: bool,
}

impl ServeArgs {
    /// Applies the rules between flags and their limits; `journal` says whether systemd's journal reads standard error.
    ///
    /// # Errors
    /// [`Error::Source`] or [`Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self, journal: bool) -> Result<Serve> {
        if !self.listen.ip().is_loopback() && self.token_file.is_none() {
            return Err(Error::Argument(format!(
                "--listen {}: other machines reach this address, and the camera with it; give --token-file FILE, or listen on \
                 127.0.0.1",
                self.listen
            )));
        }
        if self.queue > MAX_QUEUE {
            return Err(Error::Argument(format!("--queue {}: at most {MAX_QUEUE} may wait", self.queue)));
        }
        let tokens = self.tokens.resolve()?;
        Ok(Serve {
            stream: self.stream.resolve()?,
            tokens,
            listen: self.listen,
            token_file: self.token_file,
            allow_files: self.allow_files,
            queue: self.queue,
            journal,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn serve(arguments: &str) -> Result<Serve> {
        let words = format!("utr serve --source test://ball {arguments}");
        let cli = Cli::try_parse_from(words.split_whitespace())
            .map_err(|error| Error::Argument(error.to_string()))?;
        let Command::Serve(arguments) = cli.command else { panic!("not serve") };
        arguments.resolve(false)
    }

    #[test]
    fn only_a_token_opens_the_network() {
        assert!(serve("").unwrap().listen.ip().is_loopback());
        assert!(serve("--listen [::1]:0").is_ok());
        for address in ["0.0.0.0:8600", "[::]:8600", "192.168.1.5:80"] {
            let message = serve(&format!("--listen {address}")).unwrap_err().to_string();
            assert!(message.contains("--token-file"), "{message}");
            assert!(serve(&format!("--listen {address} --token-file t")).is_ok());
        }
        assert!(serve("--queue 257").unwrap_err().to_string().contains("256"));
        assert!(serve("--uniform").is_err());
    }
}
