import type { ClusterDescription } from './cluster.js';

/** Makes the user `dev`, who may create repositories, and returns a token of theirs. */
export async function makeDeveloper({
  frontEnds,
  adminToken,
}: ClusterDescription): Promise<string> {
  const [first] = frontEnds;
  if (first === undefined) throw new Error('there is no front-end');
  const post = async (path: string, body: object): Promise<Response> =>
    fetch(`${first.http}/api/v1${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${adminToken}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  const made = await post('/users', { name: 'dev', canCreate: true });
  // It is there when the cluster was started on data from before.
  if (!made.ok && made.status !== 409) throw new Error(`no user dev: ${await made.text()}`);
  const answer = await post('/tokens', { user: 'dev', name: `cluster ${Date.now()}` });
  if (!answer.ok) throw new Error(`no token for dev: ${await answer.text()}`);
  const { secret }: { secret?: string } = JSON.parse(await answer.text());
  if (secret === undefined) throw new Error('the token of dev was not told');
  return secret;
}
