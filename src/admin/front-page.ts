/** The page at `/` of the admin port: where the API is. It shows nothing that needs a token. */
export const frontPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>onewriter</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 40rem; padding: 0 1rem }</style>
<h1>onewriter</h1>
<p>The admin API is below <code>/v1</code> and needs a bearer token;
<code>/v1/openapi.json</code> describes it, <code>docs/admin-api.md</code> explains it.</p>
<p>Open to everybody who reaches this port:
<a href="/healthz">/healthz</a>, <a href="/readyz">/readyz</a>, <a href="/metrics">/metrics</a>.</p>
<p>On the command line: <code>scripts/onewriter status</code>.</p>
</html>
`;
