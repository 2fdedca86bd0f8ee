//! `utr ros` on the command line.
//!
//! Comes in: its flags, and the domain that the environment names. Goes out: [`Ros`], checked. Names are made whole here: `~/image` of a node `utr`
//! in `/robot` is `/robot/utr/image`.

use clap::{Args, ValueEnum};

use super::shared::{ModelArgs, Stream, TokenArgs, TokenChoice};
use crate::answer::check_question;
use crate::capture::Feed;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::watch::ScheduleArgs;

/// The highest domain whose ports exist.
const MAX_DOMAIN: u16 = 232;
/// Most questions that may wait.
const MAX_QUEUE: usize = 64;

/// `utr ros`, as typed.
#[derive(Debug, Args)]
pub struct RosArgs {
    /// Read frames from here instead of a topic; as for the other commands
    #[arg(long, value_name = "URI", conflicts_with = "image")]
    pub source: Option<String>,
    /// The topic with sensor_msgs/msg/Image to read: rgb8, bgr8 or mono8
    #[arg(long, value_name = "TOPIC", default_value = "~/image")]
    pub image: String,
    /// What reads them.
    #[command(flatten)]
    pub model: ModelArgs,
    /// How answers are drawn.
    #[command(flatten)]
    pub tokens: TokenArgs,
    /// A standing question: each answer goes to ~/answer, and to ~/alerts where it counts; give it several times for several
    #[arg(long, value_name = "TEXT")]
    pub question: Vec<String>,
    /// When they are asked, and which answers count.
    #[command(flatten)]
    pub schedule: ScheduleArgs,
    /// The node's name
    #[arg(long, value_name = "NAME", default_value = "utr")]
    pub name: String,
    /// The node's namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "/")]
    pub namespace: String,
    /// The DDS domain, 0 to 232 [default: ROS_DOMAIN_ID, else 0]
    #[arg(long, value_name = "N")]
    pub domain_id: Option<u16>,
    /// How services travel: enhanced for Fast DDS, cyclone for Cyclone DDS, basic for Connext in its basic mapping
    #[arg(long, value_name = "KIND", default_value = "enhanced")]
    pub services: ServiceKind,
    /// Questions that may wait beside the one being answered; more are refused
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub queue: usize,
}

/// How services travel over DDS; ROS 2's middlewares differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceKind {
    /// Fast DDS, which most distributions take
    Enhanced,
    /// Cyclone DDS
    Cyclone,
    /// Connext in its basic mapping
    Basic,
}

/// `utr ros`, resolved.
#[derive(Clone, Debug)]
pub struct Ros {
    /// The source and the model.
    pub stream: Stream,
    /// The topic that is the source, and where its pictures go; none where the source is another.
    pub image: Option<(String, Feed)>,
    /// How answers are drawn.
    pub tokens: TokenChoice,
    /// Standing questions.
    pub question: Vec<String>,
    /// When they are asked, and which answers count.
    pub schedule: ScheduleArgs,
    /// The node's name.
    pub name: String,
    /// The node's namespace.
    pub namespace: String,
    /// The DDS domain.
    pub domain_id: u16,
    /// How services travel.
    pub services: ServiceKind,
    /// Questions that may wait.
    pub queue: usize,
}

impl RosArgs {
    /// Applies the rules between flags and their limits; `domain` is what the environment names.
    ///
    /// # Errors
    /// [`Error::Source`] or [`Error::Argument`] with the flag, what it got and what it takes.
    pub fn resolve(self, domain: Option<&str>) -> Result<Ros> {
        self.question.iter().try_for_each(|question| check_question(question))?;
        if self.queue > MAX_QUEUE {
            return Err(Error::Argument(format!("--queue {}: at most {MAX_QUEUE} may wait", self.queue)));
        }
        check_name(&self.name)?;
        let namespace = format!("/{}", self.namespace.trim_matches('/'));
        if namespace.len() > 1 {
            namespace.split('/').skip(1).try_for_each(check_name)?;
        }
        let topic = whole_name(&self.image, &namespace, &self.name)?;
        let (source, image) = match &self.source {
            Some(text) => (Source::parse(text)?, None),
            None => {
                let feed = Feed::new(format!("the topic {topic}"));
                (Source::Feed(feed.clone()), Some((topic, feed)))
            }
        };
        let tokens = self.tokens.resolve()?;
        Ok(Ros {
            stream: self.model.resolve(source)?,
            image,
            tokens,
            question: self.question,
            schedule: self.schedule,
            name: self.name,
            namespace,
            domain_id: self.domain_id.map_or_else(|| domain_id(domain), check_domain)?,
            services: self.services,
            queue: self.queue,
        })
    }
}

impl Ros {
    /// The name of what belongs to the node, such as `ask`, made whole.
    pub fn private(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.namespace.trim_end_matches('/'), self.name)
    }
}

fn domain_id(text: Option<&str>) -> Result<u16> {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| Error::Argument(format!("ROS_DOMAIN_ID={text}: give 0 to {MAX_DOMAIN}")))
            .and_then(check_domain),
    }
}

fn check_domain(id: u16) -> Result<u16> {
    if id > MAX_DOMAIN {
        return Err(Error::Argument(format!("the DDS domain {id}: give 0 to {MAX_DOMAIN}")));
    }
    Ok(id)
}

/// `~/image`, `/camera/image` or `image`, made whole.
fn whole_name(text: &str, namespace: &str, node: &str) -> Result<String> {
    let root = namespace.trim_end_matches('/');
    let whole = match (text.strip_prefix("~/"), text.strip_prefix('/')) {
        (Some(own), _) => format!("{root}/{node}/{own}"),
        (_, Some(_)) => text.to_string(),
        _ => format!("{root}/{text}"),
    };
    whole.split('/').skip(1).try_for_each(check_name)?;
    Ok(whole)
}

/// One part of a name.
fn check_name(part: &str) -> Result<()> {
    let first = part.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let rest = part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if first && rest && !part.contains("__") {
        return Ok(());
    }
    Err(Error::Argument(format!(
        "{part:?} is no name in ROS 2: letters, digits and single underscores, a digit never first; the parts of a topic are parted by /"
    )))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn ros(arguments: &str, domain: Option<&str>) -> Result<Ros> {
        let words = format!("utr ros {arguments}");
        let cli = Cli::try_parse_from(words.split_whitespace())
            .map_err(|error| Error::Argument(error.to_string()))?;
        let Command::Ros(arguments) = cli.command else { panic!("not ros") };
        arguments.resolve(domain)
    }

    #[test]
    fn names_are_made_whole() {
        let topic = |arguments| ros(arguments, None).unwrap().image.unwrap().0;
        assert_eq!(topic(""), "/utr/image");
        assert_eq!(topic("--namespace /robot/front --name eye"), "/robot/front/eye/image");
        assert_eq!(topic("--image /camera/image_raw --namespace robot"), "/camera/image_raw");
        assert_eq!(topic("--image image_raw --namespace robot"), "/robot/image_raw");
        assert_eq!(ros("--namespace robot", None).unwrap().private("ask"), "/robot/utr/ask");
        assert_eq!(ros("", None).unwrap().private("ask"), "/utr/ask");
        for bad in
            ["--name 1utr", "--image ~/a//b", "--image /", "--namespace a__b", "--name a/b", "--image é"]
        {
            assert!(ros(bad, None).unwrap_err().to_string().contains("no name"), "{bad}");
        }
    }

    #[test]
    fn the_flag_beats_the_environment_and_both_have_limits() {
        assert_eq!(ros("", None).unwrap().domain_id, 0);
        assert_eq!(ros("", Some("42")).unwrap().domain_id, 42);
        assert_eq!(ros("--domain-id 7", Some("42")).unwrap().domain_id, 7);
        assert!(ros("", Some("x")).unwrap_err().to_string().contains("ROS_DOMAIN_ID"));
        assert!(ros("--domain-id 233", None).is_err() && ros("", Some("233")).is_err());
    }

    #[test]
    fn another_source_takes_the_topics_place() {
        let other = ros("--source test://ball", None).unwrap();
        assert!(other.image.is_none() && other.stream.source.to_string().starts_with("test://ball"));
        assert!(ros("--source test://ball --image /x", None).is_err());
        assert_eq!(ros("", None).unwrap().stream.source.to_string(), "the topic /utr/image");
    }
}
