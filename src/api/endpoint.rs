//! What there is to ask: each endpoint says what it takes and gives, and has the function that does it. Router, OpenAPI
//! document and checks of requests are all made of this.

use std::borrow::Cow;

use utoipa::ToSchema;
use utoipa::openapi::{RefOr, schema::Schema};

use super::access::Least;
use super::call::{Answer, Call, Parameter};
use super::problem::Problem;
use super::world::World;

/// All paths begin with it.
pub(super) const BASE: &str = "/api/v1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }
}

/// A type of a body.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: fn() -> Cow<'static, str>,
    pub(super) own: fn() -> RefOr<Schema>,
    pub(super) others: fn(&mut Vec<(String, RefOr<Schema>)>),
    /// One after another, with a cursor.
    pub(super) is_page: bool,
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&(self.name)())
    }
}

impl Shape {
    pub(super) fn of<T: ToSchema>() -> Self {
        Self { name: T::name, own: T::schema, others: T::schemas, is_page: false }
    }

    pub(super) fn page<T: ToSchema>() -> Self {
        Self { is_page: true, ..Self::of::<T>() }
    }
}

/// What comes back when all goes well.
#[derive(Clone, Copy, Debug)]
pub(super) enum Returns {
    Json(Shape),
    /// Something else than JSON, by its content type.
    Other(&'static str),
}

/// Does it. May block.
pub(super) type Run = fn(&World, &Call) -> Result<Answer, Problem>;

/// One of the things that can be asked.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// After [`BASE`], with parts in braces.
    pub(super) path: String,
    /// Word for programs that are generated from the document.
    pub(super) id: String,
    pub(super) group: &'static str,
    pub(super) summary: String,
    pub(super) about: &'static str,
    pub(super) query: Vec<&'static Parameter>,
    /// What `If-Match` is good for here; `None`: nothing.
    pub(super) if_match: Option<&'static str>,
    pub(super) body: Option<Shape>,
    pub(super) returns: Returns,
    pub(super) tagged: bool,
    pub(super) creates: bool,
    /// Problems beside those that every endpoint of its form has.
    pub(super) also: Vec<u16>,
    pub(super) least: Least,
    pub(super) run: Run,
}

impl Endpoint {
    pub(super) fn new(method: Method, path: impl Into<String>, id: impl Into<String>, run: Run) -> Self {
        let path = path.into();
        let least = super::access::least(method, &path);
        Self {
            method,
            path,
            id: id.into(),
            group: "",
            summary: String::new(),
            about: "",
            query: Vec::new(),
            if_match: None,
            body: None,
            returns: Returns::Other("application/json"),
            tagged: false,
            creates: false,
            also: Vec::new(),
            least,
            run,
        }
    }

    #[must_use]
    pub(super) fn summary(mut self, group: &'static str, summary: impl Into<String>) -> Self {
        (self.group, self.summary) = (group, summary.into());
        self
    }

    #[must_use]
    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    #[must_use]
    pub(super) fn query(mut self, parameters: &[&'static Parameter]) -> Self {
        self.query.extend(parameters);
        self
    }

    #[must_use]
    pub(super) fn if_match(mut self, about: &'static str) -> Self {
        self.if_match = Some(about);
        self
    }

    #[must_use]
    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some(Shape::of::<T>());
        self
    }

    #[must_use]
    pub(super) fn gives<T: ToSchema>(mut self) -> Self {
        self.returns = Returns::Json(Shape::of::<T>());
        self
    }

    /// Many, with a cursor.
    #[must_use]
    pub(super) fn pages<T: ToSchema>(mut self) -> Self {
        self.returns = Returns::Json(Shape::page::<T>());
        self.query(&[&super::cursor::LIMIT, &super::cursor::AFTER])
    }

    #[must_use]
    pub(super) fn gives_other(mut self, kind: &'static str) -> Self {
        self.returns = Returns::Other(kind);
        self
    }

    #[must_use]
    pub(super) fn tagged(mut self) -> Self {
        self.tagged = true;
        self
    }

    /// May answer 201.
    #[must_use]
    pub(super) fn creates(mut self) -> Self {
        self.creates = true;
        self
    }

    #[must_use]
    pub(super) fn also(mut self, statuses: &[u16]) -> Self {
        self.also.extend(statuses);
        self
    }

    /// Names of the parts of the path.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    pub(super) fn full_path(&self) -> String {
        format!("{BASE}{}", self.path)
    }

    /// Statuses of problems that can come of it.
    pub(super) fn problems(&self) -> Vec<u16> {
        let mut statuses = vec![400, 429, 500, 503];
        match self.least {
            Least::Anyone => {}
            Least::Role(super::Role::Viewer) => statuses.push(401),
            Least::Role(_) | Least::Nobody => statuses.extend([401, 403]),
        }
        if self.body.is_some() {
            statuses.extend([408, 413, 415, 422]);
        }
        if self.parts().next().is_some() {
            statuses.push(404);
        }
        statuses.extend(&self.also);
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }
}
