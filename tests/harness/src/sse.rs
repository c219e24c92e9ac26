//! Server-sent events as a client reads them (the parsing rules of the HTML standard, as far as we use them).

use std::time::Duration;

use serde_json::Value;

/// What a stream said.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The cursor after it; as before where it named none.
    pub id: String,
    /// Its data; none: it only moved the cursor.
    pub data: Option<Value>,
    /// Its comment, where it is one.
    pub comment: Option<String>,
    /// How long to wait before coming again, in ms.
    pub retry: Option<u64>,
}

/// An open stream.
pub struct EventStream {
    answer: reqwest::Response,
    text: String,
    id: String,
}

impl EventStream {
    /// Reads an answer as a stream.
    pub fn new(answer: reqwest::Response) -> Self {
        Self { answer, text: String::new(), id: String::new() }
    }

    /// What it says next; none at its end.
    ///
    /// # Panics
    /// When nothing comes within `within`.
    pub async fn next(&mut self, within: Duration) -> Option<Said> {
        tokio::time::timeout(within, self.read()).await.unwrap_or_else(|_| panic!("the stream says nothing for {within:?}"))
    }

    async fn read(&mut self) -> Option<Said> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let said = self.parse(block);
                self.text = rest.to_owned();
                self.id.clone_from(&said.id);
                return Some(said);
            }
            let bytes = self.answer.chunk().await.ok().flatten()?;
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    fn parse(&self, block: &str) -> Said {
        let mut said = Said { id: self.id.clone(), data: None, comment: None, retry: None };
        for line in block.lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => value.clone_into(&mut said.id),
                "data" => said.data = serde_json::from_str(value).ok(),
                "retry" => said.retry = value.parse().ok(),
                "" => said.comment = Some(value.to_owned()),
                _ => {}
            }
        }
        said
    }

    /// The next event with data.
    ///
    /// # Panics
    /// When none comes within `within`, or the stream ends.
    pub async fn event(&mut self, within: Duration) -> Value {
        loop {
            let said = self.next(within).await.expect("the stream goes on");
            if let Some(data) = said.data {
                crate::catalogue::check(&data);
                return data;
            }
        }
    }

    /// The events that come until it ends.
    pub async fn rest(&mut self, within: Duration) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(said) = self.next(within).await {
            events.extend(said.data);
        }
        events
    }
}
