//! Callers beside the first ADMIN, made by SQL: what a test needs of them is their rights.

use harness::{Stack, client::ApiClient};

/// A company with an ADMIN and an EMPLEADO.
pub struct Company {
    /// The ADMIN.
    pub admin: ApiClient,
    /// The EMPLEADO, without any grant.
    pub clerk: ApiClient,
    /// Its e-mail address.
    pub clerk_email: String,
}

/// Makes one.
pub async fn company(stack: &Stack, name: &str) -> Company {
    let (email, clerk_email, password) = (format!("admin@{name}.example"), format!("clerk@{name}.example"), harness::random_word(12));
    stack.make_tenant(name, &email, &password).expect("a tenant is made");
    stack.postgres.sql(&format!(
        "insert into app_user (id, tenant, email, name, rol, password_hash)
         select gen_random_uuid(), tenant, '{clerk_email}', 'clerk', 'EMPLEADO', password_hash from app_user where email = '{email}'"
    ));
    let url = stack.api.url();
    Company {
        admin: ApiClient::login(&url, &email, &password).await,
        clerk: ApiClient::login(&url, &clerk_email, &password).await,
        clerk_email,
    }
}

impl Company {
    /// Lets the EMPLEADO read the chat of a job.
    pub fn grant(&self, stack: &Stack, job: &str) {
        let job: contract::JobId = job.parse().expect("an id");
        stack.postgres.sql(&format!(
            "insert into access_grant (id, tenant, app_user, session, chat, access, created_by)
             select gen_random_uuid(), j.tenant, u.id, j.session, j.chat, 'read', j.created_by
               from job j join app_user u on u.email = '{}' where j.id = '{}'",
            self.clerk_email,
            job.uuid()
        ));
    }

    /// Takes all grants of the EMPLEADO away.
    pub fn ungrant(&self, stack: &Stack) {
        stack
            .postgres
            .sql(&format!("delete from access_grant where app_user = (select id from app_user where email = '{}')", self.clerk_email));
    }

    /// Something that happens in a chat: a job that is withdrawn. Answers its id; its event is `job.updated`.
    pub async fn happens(&self, chat: &str) -> String {
        let body = serde_json::json!({"type": "text", "text": "x", "whenUnavailable": "queue"});
        let sent = self.admin.post(&format!("/api/chats/{chat}/messages"), body).await.ok();
        let job = sent["id"].as_str().expect("an id").to_owned();
        self.admin.post(&format!("/api/jobs/{job}/cancel"), serde_json::json!({})).await.ok();
        job
    }
}
