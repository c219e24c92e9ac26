//! One call as each of AWS's front doors brings it, and their answers read back.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use harness::ApiClient;
use lambda_http::aws_lambda_events::{
    alb::{AlbTargetGroupRequest, ElbContext},
    apigw::{ApiGatewayProxyRequest, ApiGatewayV2httpRequest},
    query_map::QueryMap,
};
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A call as its caller writes it.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    /// Still encoded.
    pub path: String,
    /// Still encoded.
    pub query: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Call {
    pub fn new(method: &'static str, path: impl Into<String>) -> Self {
        let headers = vec![("host".into(), "api.example.com".into()), ("x-request-id".into(), "the-same".into())];
        Self { method, path: path.into(), query: "", headers, body: Vec::new() }
    }
    pub fn query(self, query: &'static str) -> Self {
        Self { query, ..self }
    }
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    pub fn by(self, caller: &ApiClient) -> Self {
        self.header("authorization", &format!("Bearer {}", caller.token()))
    }
    pub fn json(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self.header("content-type", "application/json") }
    }
}

/// Who brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// API Gateway, REST API, with a stage.
    Rest,
    /// API Gateway, HTTP API, payload 2.0, the default stage.
    Http,
    /// The same with a stage of a name.
    Stage,
    /// A function URL.
    Url,
    /// A load balancer.
    Balancer,
    /// A load balancer whose target group has multi-value headers on.
    Multi,
}

impl Way {
    pub const ALL: [Self; 6] = [Self::Rest, Self::Http, Self::Stage, Self::Url, Self::Balancer, Self::Multi];

    /// HTTP APIs decode the path before they pass it on: an encoded slash is one then.
    pub const fn decodes_path(self) -> bool {
        matches!(self, Self::Http | Self::Stage)
    }

    pub fn event(self, call: &Call) -> Value {
        let event = match self {
            Self::Rest => serde_json::to_value(rest(call)),
            Self::Http => serde_json::to_value(http(call, "$default", "abc.execute-api.us-east-1.amazonaws.com")),
            Self::Stage => serde_json::to_value(http(call, "v9", "abc.execute-api.us-east-1.amazonaws.com")),
            Self::Url => serde_json::to_value(http(call, "$default", "abc.lambda-url.us-east-1.on.aws")),
            Self::Balancer => serde_json::to_value(balancer(call, false)),
            Self::Multi => serde_json::to_value(balancer(call, true)),
        };
        event.unwrap()
    }
}

/// Text goes as it is, anything else as base64. Function URLs encode what they like.
fn body(call: &Call, always: bool) -> (Option<String>, bool) {
    match String::from_utf8(call.body.clone()) {
        Ok(text) if text.is_empty() => (None, false),
        Ok(text) if !always => (Some(text), false),
        Ok(_) | Err(_) => (Some(STANDARD.encode(&call.body)), true),
    }
}

fn headers(call: &Call) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in &call.headers {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    map
}

fn parameters(call: &Call, decoded: bool) -> HashMap<String, Vec<String>> {
    let mut all: HashMap<String, Vec<String>> = HashMap::new();
    let read = |text: &str| if decoded { percent_decode_str(text).decode_utf8().unwrap().into_owned() } else { text.to_owned() };
    for pair in call.query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        all.entry(read(name)).or_default().push(read(value));
    }
    all
}

fn last_of(all: &HashMap<String, Vec<String>>) -> QueryMap {
    all.iter().map(|(name, values)| (name.clone(), values.last().cloned().unwrap())).collect::<HashMap<String, String>>().into()
}

fn rest(call: &Call) -> ApiGatewayProxyRequest {
    let mut event = ApiGatewayProxyRequest::default();
    event.resource = Some("/{proxy+}".into());
    event.path = Some(call.path.clone());
    event.http_method = call.method.parse().unwrap();
    event.headers = headers(call);
    event.multi_value_headers = headers(call);
    let parameters = parameters(call, true);
    event.query_string_parameters = last_of(&parameters);
    event.multi_value_query_string_parameters = parameters.into();
    event.request_context.stage = Some("prod".into());
    event.request_context.domain_name = Some("abc.execute-api.us-east-1.amazonaws.com".into());
    event.request_context.path = Some(format!("/prod{}", call.path));
    event.request_context.http_method = event.http_method.clone();
    event.request_context.identity.source_ip = Some("192.0.2.7".into());
    (event.body, event.is_base64_encoded) = body(call, false);
    event
}

fn http(call: &Call, stage: &str, domain: &str) -> ApiGatewayV2httpRequest {
    let url = domain.contains("lambda-url");
    let path = if url { call.path.clone() } else { percent_decode_str(&call.path).decode_utf8().unwrap().into_owned() };
    let path = if stage == "$default" { path } else { format!("/{stage}{path}") };
    let mut event = ApiGatewayV2httpRequest::default();
    event.version = Some("2.0".into());
    event.route_key = Some("$default".into());
    event.raw_path = Some(path.clone());
    event.raw_query_string = Some(call.query.to_owned());
    event.headers = headers(call);
    event.request_context.stage = Some(stage.into());
    event.request_context.domain_name = Some(domain.into());
    event.request_context.http.method = call.method.parse().unwrap();
    event.request_context.http.path = Some(path);
    event.request_context.http.source_ip = Some("192.0.2.7".into());
    (event.body, event.is_base64_encoded) = body(call, url);
    event
}

fn balancer(call: &Call, multi: bool) -> AlbTargetGroupRequest {
    let mut event = AlbTargetGroupRequest::default();
    event.http_method = call.method.parse().unwrap();
    event.path = Some(call.path.clone());
    let mut elb = ElbContext::default();
    elb.target_group_arn = Some("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/zaguan/1".into());
    event.request_context.elb = elb;
    let (mut headers, parameters) = (headers(call), parameters(call, false));
    headers.append("x-forwarded-for", "192.0.2.7".parse().unwrap());
    if multi {
        event.multi_value_headers = headers;
        event.multi_value_query_string_parameters = parameters.into();
    } else {
        event.headers = headers;
        event.query_string_parameters = last_of(&parameters);
    }
    (event.body, event.is_base64_encoded) = body(call, false);
    event.body = event.body.or_else(|| Some(String::new()));
    event
}

/// An answer, whoever gave it.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub status: u64,
    pub headers: BTreeMap<String, Vec<String>>,
    pub body: Vec<u8>,
}

/// What a connection adds to an answer.
const OF_THE_WIRE: [&str; 4] = ["date", "content-length", "connection", "transfer-encoding"];

impl Seen {
    fn new(status: u64, headers: impl Iterator<Item = (String, String)>, body: Vec<u8>) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers.map(|(n, v)| (n.to_lowercase(), v)).filter(|(n, _)| !OF_THE_WIRE.contains(&n.as_str())) {
            let values = all.entry(name).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        Self { status, headers: all, body }
    }

    /// What a function answered.
    pub fn of_event(answer: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let single = answer["headers"].as_object().into_iter().flatten().map(|(n, v)| (n.clone(), text(v)));
        let multi = answer["multiValueHeaders"].as_object().into_iter().flatten();
        let multi = multi.flat_map(|(n, v)| v.as_array().unwrap().iter().map(|v| (n.clone(), text(v))));
        let body = answer["body"].as_str().unwrap_or_default();
        let body = if answer["isBase64Encoded"] == json!(true) { STANDARD.decode(body).unwrap() } else { body.as_bytes().to_vec() };
        Self::new(answer["statusCode"].as_u64().unwrap(), single.chain(multi), body)
    }

    /// What the container answers, to exactly these bytes: a client library would tidy the path up.
    pub async fn of_container(url: &str, call: &Call) -> Self {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let query = if call.query.is_empty() { String::new() } else { format!("?{}", call.query) };
        let mut head =
            format!("{} {}{query} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", call.method, call.path, call.body.len());
        for (name, value) in &call.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a body may close before it has all of it.
        let _ = stream.write_all(&call.body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer to {call:?}"));
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned()));
        Self::new(status, headers, answer[end + 4..].to_vec())
    }

    /// The body as JSON without what differs from one moment to the next.
    pub fn steady(mut self) -> Self {
        if let Ok(mut json) = serde_json::from_slice::<Value>(&self.body) {
            forget_moments(&mut json);
            self.body = json.to_string().into_bytes();
        }
        self
    }
}

fn forget_moments(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            for name in ["asOf", "accessToken", "refreshToken", "expiresAt"] {
                if let Some(value) = fields.get_mut(name) {
                    *value = Value::Null;
                }
            }
            fields.values_mut().for_each(forget_moments);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_moments),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
