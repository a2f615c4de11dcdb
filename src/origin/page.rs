/// A page that we answer with ourselves in the CMS's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    title: &'static str,
    text: &'static str,
}

impl Page {
    /// Without a CMS: 200 on `/`, so that a first visit sees that the sidecar runs, and 404 on every other path.
    /// `path` is without the query.
    #[must_use]
    pub fn without_cms(path: &str) -> Self {
        if path == "/" {
            return Self {
                status: 200,
                title: "It works",
                text: "mcp-sidecar is running. No site is configured here.",
            };
        }
        Self { status: 404, title: "Not found", text: "There is no page at this address." }
    }

    /// The CMS could not be reached or broke off.
    pub const BAD_GATEWAY: Self =
        Self { status: 502, title: "Site unavailable", text: "The site did not answer. Please try again in a moment." };

    /// The CMS did not answer in time.
    pub const GATEWAY_TIMEOUT: Self =
        Self { status: 504, title: "Site too slow", text: "The site took too long to answer. Please try again." };

    /// Header names (lower case) and values, without `content-length`.
    #[must_use]
    pub const fn headers(self) -> [(&'static str, &'static str); 6] {
        [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
        ]
    }

    /// The HTML document.
    #[must_use]
    pub fn body(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}</style>\
             </head><body><h1>{title}</h1><p>{text}</p></body></html>\n",
            title = self.title,
            text = self.text,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_page_greets_and_others_are_not_found() {
        assert_eq!(Page::without_cms("/").status, 200);
        assert_eq!(Page::without_cms("/x").status, 404);
        for page in [Page::without_cms("/"), Page::BAD_GATEWAY, Page::GATEWAY_TIMEOUT] {
            assert!(page.body().contains(page.title) && !page.body().contains("http"));
        }
    }
}
