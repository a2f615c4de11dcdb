use rmcp::model::{PromptMessage, Role};

use crate::executor::argument::{Arguments, Caps, Invalid};
use crate::executor::prompts::{Argument, Prompt};

pub(in crate::executor) const PROMPT: Prompt = Prompt {
    name: "evo.prompt.sample",
    title: "Sample",
    description: "Sums a document up.",
    arguments: &[
        Argument { name: "id", description: "The document.", required: true },
        Argument { name: "language", description: "What to write in; the document's own if absent.", required: false },
    ],
    messages,
};

fn messages(arguments: &mut Arguments<'_>, _: &Caps) -> Result<Vec<PromptMessage>, Invalid> {
    let id = arguments.required_integer("id", 1);
    let language = arguments.text("language").unwrap_or("its own language");
    arguments.rules()?;
    let text = format!("Read document {id} with the tool evo.content.get, and sum it up in {language}.");
    Ok(vec![PromptMessage::new_text(Role::User, text)])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::executor::tests::caps;

    #[test]
    fn it_says_what_its_arguments_ask_for() {
        let said = |arguments: Value| {
            let arguments = arguments.as_object().expect("an object").clone();
            PROMPT.say(&arguments, &caps()).map_err(|invalid| invalid.text())
        };
        let messages = said(json!({"id": "2", "language": "Ukrainian"})).expect("they hold");
        let messages = serde_json::to_value(messages).expect("is JSON");
        let text = "Read document 2 with the tool evo.content.get, and sum it up in Ukrainian.";
        assert_eq!(messages, json!([{"role": "user", "content": {"type": "text", "text": text}}]));
        assert_eq!(said(json!({})), Err("The id field is required.".to_owned()));
        assert_eq!(said(json!({"id": "two"})), Err("The id field must be an integer.".to_owned()));
    }
}
