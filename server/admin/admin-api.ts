import type { IncomingMessage, ServerResponse } from 'node:http';
import express from 'express';
import { QuorateError } from '../../backends/contract/errors.js';
import { createDispatcher } from './dispatch.js';
import type { Endpoint } from './endpoint.js';
import { HttpRefusal } from './error-map.js';
import { openapiEndpoint } from './openapi.js';
import type { AdminApiOptions } from './options.js';
import { withPages } from './page.js';
import { auditEndpoints } from './routes/audit.js';
import { certificateEndpoints } from './routes/certificates.js';
import { clusterEndpoints } from './routes/cluster.js';
import { deployKeyEndpoints } from './routes/deploy-keys.js';
import { forkEndpoints } from './routes/forks.js';
import { groupEndpoints } from './routes/groups.js';
import { issuerEndpoints } from './routes/issuers.js';
import { keyEndpoints, signingKeyEndpoints } from './routes/keys.js';
import { longRunningEndpoints } from './routes/long-running.js';
import { patternGrantEndpoints } from './routes/pattern-grants.js';
import { quotaEndpoints } from './routes/quotas.js';
import { repositoryAccessEndpoints } from './routes/repository-access.js';
import { repositoryEndpoints } from './routes/repositories.js';
import { hookEndpoints } from './routes/hooks.js';
import { ruleEndpoints } from './routes/rules.js';
import { statusEndpoints } from './routes/status.js';
import { tokenEndpoints } from './routes/tokens.js';
import { userEndpoints } from './routes/users.js';
import { webhookEndpoints } from './routes/webhooks.js';

/**
 * The admin REST API: an Express application for requests whose path starts with `/api/`. It answers every request
 * itself, with JSON; nothing falls through. See docs/admin-api.md for what it offers.
 */
export function createAdminApi(
  options: AdminApiOptions,
): (request: IncomingMessage, response: ServerResponse) => void {
  const endpoints = adminEndpoints(options);
  const dispatch = createDispatcher(options);
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('case sensitive routing', true);
  app.set('strict routing', true);
  for (const endpoint of endpoints) {
    app[endpoint.method](`/api/v1${endpoint.path}`, dispatch.serve(endpoint));
  }
  for (const path of new Set(endpoints.map((endpoint) => endpoint.path))) {
    const sharing = endpoints.filter((endpoint) => endpoint.path === path);
    const allowed = sharing.map((endpoint) => endpoint.method.toUpperCase()).join(', ');
    app.all(`/api/v1${path}`, (_request, response) => {
      response.setHeader('Allow', allowed);
      throw new HttpRefusal(
        405,
        new QuorateError('invalid-argument', `this path takes ${allowed} only`),
      );
    });
  }
  app.use(() => {
    throw new QuorateError('not-found', 'there is no such path; the admin API is under /api/v1');
  });
  app.use(dispatch.refuse);
  return app;
}

/** Everything the admin API offers. */
export function adminEndpoints(options: AdminApiOptions): readonly Endpoint[] {
  const endpoints: readonly Endpoint[] = [
    openapiEndpoint(() => endpoints, options.version),
    ...userEndpoints(options),
    ...groupEndpoints(options),
    ...patternGrantEndpoints(options),
    ...certificateEndpoints(options),
    ...issuerEndpoints(options),
    ...keyEndpoints(options),
    ...tokenEndpoints(options),
    ...repositoryEndpoints(options),
    ...forkEndpoints(options),
    ...repositoryAccessEndpoints(options),
    ...deployKeyEndpoints(options),
    ...ruleEndpoints(options),
    ...hookEndpoints(options),
    ...webhookEndpoints(options),
    ...quotaEndpoints(options),
    ...signingKeyEndpoints(options),
    ...longRunningEndpoints(options),
    ...auditEndpoints(options),
    ...clusterEndpoints(options),
    ...statusEndpoints(options),
  ].map(withPages);
  return endpoints;
}
