//! What Hugging Face adds to Jinja for chat templates.
//!
//! Comes in: a template environment. Goes out: the same with Python's string methods, `raise_exception`, `strftime_now`
//! (in UTC) and a `tojson` that prints like Python's `json.dumps(.., ensure_ascii=False)`. Templates get no access to files,
//! the clock aside, and their work is bounded.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

/// Instructions that one rendering may take; published templates take thousands.
const FUEL: u64 = 5_000_000;

/// Sets an environment up as `transformers` does.
pub(crate) fn prepare(environment: &mut Environment<'_>) {
    // The default delimiters need no custom syntax; only the whitespace rules differ.
    let mut syntax = minijinja::syntax::SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment.set_fuel(Some(FUEL));
}

/// Replaces `{% generation %}` … `{% endgeneration %}`, which only mark the loss in training, by a condition that holds.
pub(crate) fn without_generation_marks(source: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(source.len()), source);
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((inner, after)) = tag.split_once("%}") else { break };
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let inner = match word {
            "generation" => inner.replace(word, "if true"),
            "endgeneration" => inner.replace(word, "endif"),
            _ => inner.to_owned(),
        };
        out.extend([before, "{%", &inner, "%}"]);
        rest = after;
    }
    out + rest
}

fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = String::new();
    write_json(value, indent, 0, &mut out)?;
    Ok(out)
}

fn write_json(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    let quoted = |text: &str| {
        serde_json::to_string(text).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
    };
    let new_line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool | ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::String => out.push_str(&quoted(value.as_str().unwrap_or_default())?),
        kind @ (ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) => {
            let map = kind == ValueKind::Map;
            out.push(if map { '{' } else { '[' });
            let mut any = false;
            for item in value.try_iter()? {
                out.push_str(if any { comma } else { "" });
                any = true;
                new_line(depth + 1, out);
                if map {
                    out.push_str(&quoted(&item.to_string())?);
                    out.push_str(": ");
                    write_json(&value.get_item(&item)?, indent, depth + 1, out)?;
                } else {
                    write_json(&item, indent, depth + 1, out)?;
                }
            }
            if any {
                new_line(depth, out);
            }
            out.push(if map { '}' } else { ']' });
        }
        kind => {
            return Err(Error::new(ErrorKind::BadSerialization, format!("tojson cannot print a {kind}")));
        }
    }
    Ok(())
}

fn strftime_now(format: &str) -> Result<String, Error> {
    let seconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    strftime(format, seconds)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The conversions that chat templates use, for `seconds` since 1970 in UTC.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    // 1970-01-01 was a Thursday.
    let day_name = DAYS.get(((days + 3) % 7) as usize).copied().unwrap_or_default();
    let short = |name: &str| name.chars().take(3).collect::<String>();
    let (mut out, mut letters) = (String::new(), format.chars());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        out.push_str(&match letters.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => month_name.to_owned(),
            Some('b') => short(month_name),
            Some('A') => day_name.to_owned(),
            Some('a') => short(day_name),
            Some('H') => format!("{:02}", second / 3600),
            Some('M') => format!("{:02}", second / 60 % 60),
            Some('S') => format!("{:02}", second % 60),
            Some('%') => "%".to_owned(),
            other => {
                let found = other.map_or(String::new(), String::from);
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: %{found} is not supported"),
                ));
            }
        });
    }
    Ok(out)
}

/// Year, month (1 to 12) and day of a day count since 1970-01-01, Gregorian calendar.
fn civil_date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let mut environment = Environment::new();
        prepare(&mut environment);
        let value =
            minijinja::context! { x => vec!["a<b", "ü"], m => minijinja::context! { k => 1, b => true } };
        environment.render_str(&without_generation_marks(source), value)
    }

    #[test]
    fn tojson_prints_like_python() {
        assert_eq!(render("{{ x|tojson }}").unwrap(), r#"["a<b", "ü"]"#);
        assert_eq!(render("{{ m|tojson }}").unwrap().len(), r#"{"k": 1, "b": true}"#.len());
        assert_eq!(render("{{ x|tojson(indent=2) }}").unwrap(), "[\n  \"a<b\",\n  \"ü\"\n]");
    }

    #[test]
    fn blocks_are_trimmed_and_python_methods_work() {
        assert_eq!(render("  {% if true %}\nA\n  {% endif %}\n{{ ' b '.strip() }}").unwrap(), "A\nb");
        assert_eq!(render("{%- generation -%} A {%- endgeneration %}").unwrap(), "A");
        assert_eq!(
            render("{% for c in x %}{% if loop.last %}{% break %}{% endif %}{{ c }}{% endfor %}").unwrap(),
            "a<b"
        );
    }

    #[test]
    fn raised_exceptions_carry_their_message() {
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}";
        assert!(render(endless).unwrap_err().to_string().contains("fuel"));
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(format!("{error:#}").contains("roles must alternate"));
    }

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(
            strftime("%A %d %B %Y %H:%M:%S", 951_786_000).unwrap(),
            "Tuesday 29 February 2000 01:00:00"
        );
        assert_eq!(strftime("%a %y-%m-%d", 0).unwrap(), "Thu 70-01-01");
        assert!(strftime("%Q", 0).is_err());
    }
}
