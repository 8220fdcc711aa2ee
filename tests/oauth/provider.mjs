// An OAuth server (oidc-provider) and an API behind it, over TLS, with a control port in clear for the tests.
// Refresh tokens are used once; the use of a used one revokes the family.
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import crypto from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [cert, key, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const HOST = 'login.example.test';
const mode = { rotate: true, ttl: 3600, fail: null, delay: 0 };
const nothing = () => ({ refreshes: 0, revoked: 0, tokens: 0, grants: [], api: [], refused: 0 });
const seen = nothing();

const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();

const provider = new Provider(`https://${HOST}:${port}`, {
  clients: ['post', 'basic'].map((how) => ({
    client_id: `nexus-${how}`,
    client_secret: process.env.CLIENT_SECRET,
    redirect_uris: ['https://app.example.test/callback'],
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
    token_endpoint_auth_method: `client_secret_${how}`,
  })),
  cookies: { keys: ['tests'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    // A client that names a resource gets a JWT for it.
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        audience: resource, scope: '', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  pkce: { required: () => false },
  scopes: ['openid', 'offline_access'],
  rotateRefreshToken: () => mode.rotate,
  issueRefreshToken: async (ctx, client, code) => code.scopes.has('offline_access'),
  ttl: {
    AccessToken: () => mode.ttl,
    ClientCredentials: () => mode.ttl,
    RefreshToken: 86400,
    Grant: 86400,
    Session: 86400,
    Interaction: 600,
    AuthorizationCode: 600,
    IdToken: 600,
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
});

provider.on('grant.revoked', () => { seen.revoked += 1; });
provider.on('grant.error', (ctx, error) => { seen.grants.push(`${error.error}: ${error.error_detail ?? ''}`); });
provider.on('server_error', (ctx, error) => { console.error(error); });

provider.use(async (ctx, next) => {
  if (ctx.path !== '/token') return next();
  seen.tokens += 1;
  if (mode.delay) await new Promise((resolve) => setTimeout(resolve, mode.delay));
  if (mode.fail) {
    ctx.status = mode.fail.status;
    ctx.body = mode.fail.body;
    return undefined;
  }
  await next();
  if (ctx.oidc?.params?.grant_type === 'refresh_token') seen.refreshes += 1;
  // Without rotation the answer has no refresh token: the old one goes on.
  if (!mode.rotate && ctx.body) delete ctx.body.refresh_token;
  return undefined;
});

const callback = provider.callback();

// Everybody who comes is logged in and agrees.
async function interact(req, res) {
  const details = await provider.interactionDetails(req, res);
  const { prompt, params, session } = details;
  if (prompt.name === 'login') {
    return provider.interactionFinished(req, res, { login: { accountId: 'person' } });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope('openid offline_access');
  return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } });
}

const destroyed = new Set();

async function api(req, res) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const value = (req.headers.authorization ?? '').replace(/^Bearer /, '');
  const token = (await provider.AccessToken.find(value)) ?? (await provider.ClientCredentials.find(value));
  const valid = token && !token.isExpired && !destroyed.has(token.jti);
  const one = {
    status: valid ? 200 : 401,
    path: req.url,
    method: req.method,
    bytes: body.length,
    sha256: crypto.createHash('sha256').update(body).digest('hex'),
    authorizations: req.rawHeaders.filter((name) => name.toLowerCase() === 'authorization').length,
  };
  seen.api.push(one);
  if (!valid) seen.refused += 1;
  res.writeHead(one.status, {
    'content-type': 'application/json',
    ...(valid ? {} : { 'www-authenticate': 'Bearer error="invalid_token"' }),
  });
  res.end(JSON.stringify(valid ? { ...one, echo: value } : { error: 'invalid_token', given: value }));
}

server.on('request', (req, res) => {
  const handled = req.url === '/api' || req.url.startsWith('/api/') ? api(req, res)
    : req.url.startsWith('/interaction/') ? interact(req, res)
      : callback(req, res);
  Promise.resolve(handled).catch((error) => { console.error(error); res.destroy(); });
});

// Which access tokens are still good is told by their ids, so that all of them can be ended at once.
const issued = new Set();
for (const name of ['access_token.saved', 'client_credentials.saved']) {
  provider.on(name, (token) => { issued.add(token.jti); });
}

const control = http.createServer(async (req, res) => {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  if (req.url === '/expire') for (const id of issued) destroyed.add(id);
  if (req.url === '/mode') Object.assign(mode, JSON.parse(text));
  if (req.url === '/reset') Object.assign(seen, nothing());
  res.end(JSON.stringify(seen));
});
await new Promise((resolve) => control.listen(0, '127.0.0.1', resolve));
console.log(JSON.stringify({ port, control: control.address().port }));
