//! The small vocabulary of the world: categories, colours, sizes, textures, headings and skills, with their words.
//!
//! Every enum lists its values in a fixed order (`ALL`) and knows the word used in texts and files. Draws nothing.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum $name { $($variant),+ }

        impl $name {
            /// Every value, in a fixed order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word used in texts.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

words!(
    /// The shape of an object.
    Category { Ball = "ball", Box = "box", Triangle = "triangle", Star = "star", Cross = "cross", Ring = "ring" }
);
words!(
    /// Six well separated colours.
    Colour { Red = "red", Green = "green", Blue = "blue", Yellow = "yellow", Purple = "purple", White = "white" }
);
words!(
    /// The width of an object: 0.17 or 0.25 of the picture.
    Size { Small = "small", Large = "large" }
);
words!(
    /// The surface of an object, in a darker shade of its colour.
    Texture { Plain = "plain", Striped = "striped", Dotted = "dotted" }
);
words!(
    /// A direction of movement on the picture.
    Heading { Left = "left", Right = "right", Up = "up", Down = "down" }
);
words!(
    /// What a question tests, named as in MVBench and TempCompass.
    Skill {
        Direction = "direction", Rotation = "rotation", Antonym = "antonym", Speed = "speed",
        AttributeChange = "attribute_change", EventOrder = "event_order", ActionSequence = "action_sequence",
        Follow = "follow", ObjectShuffle = "object_shuffle", Localization = "localization", ActionCount = "action_count",
        MovingCount = "moving_count", MovingAttribute = "moving_attribute", Existence = "existence",
        Attribute = "attribute", Location = "location",
    }
);

impl Skill {
    /// Whether only the order of frames decides: the twin is the exact time reversal and no single frame or unordered bag
    /// of frames tells the two apart.
    pub fn is_order(self) -> bool {
        use Skill::*;
        matches!(
            self,
            Direction | Rotation | Antonym | Speed | AttributeChange | EventOrder | ActionSequence | Follow
        )
    }

    /// Whether one frame, any one, answers (plain image questions).
    pub fn is_static(self) -> bool {
        matches!(self, Skill::Attribute | Skill::Location)
    }
}

impl Colour {
    /// Its RGB value.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Colour::Red => [232, 48, 44],
            Colour::Green => [44, 200, 72],
            Colour::Blue => [52, 108, 250],
            Colour::Yellow => [248, 220, 40],
            Colour::Purple => [196, 64, 220],
            Colour::White => [246, 246, 246],
        }
    }
}

impl Size {
    /// Half the width of the object as a fraction of the picture.
    pub fn half(self) -> f32 {
        match self {
            Size::Small => 0.085,
            Size::Large => 0.125,
        }
    }
}

impl Heading {
    /// Unit vector, y downwards.
    pub fn vector(self) -> [f32; 2] {
        match self {
            Heading::Left => [-1.0, 0.0],
            Heading::Right => [1.0, 0.0],
            Heading::Up => [0.0, -1.0],
            Heading::Down => [0.0, 1.0],
        }
    }

    /// The direction seen when the clip is played backwards.
    pub fn opposite(self) -> Self {
        match self {
            Heading::Left => Heading::Right,
            Heading::Right => Heading::Left,
            Heading::Up => Heading::Down,
            Heading::Down => Heading::Up,
        }
    }

    /// Left or right.
    pub fn is_horizontal(self) -> bool {
        matches!(self, Heading::Left | Heading::Right)
    }
}
