import assert from 'node:assert/strict';
import { defineThirdPartySuite } from './third-party-suite.js';
import type { ThirdPartyClient, ThirdPartyScene, Transport } from './third-party-suite.js';

/** libgit2's client, by way of pygit2. A refused ref ends it with status 3 and the reason alone on stdout. */
const script = `
import json, sys
import pygit2

operation, arguments, sign_in = json.loads(sys.argv[1])

class Callbacks(pygit2.RemoteCallbacks):
    asked = 0
    refused = None
    def credentials(self, url, username_from_url, allowed_types):
        self.asked += 1
        if self.asked > 1:
            raise pygit2.GitError('authentication failed')
        if 'token' in sign_in:
            return pygit2.UserPass('admin', sign_in['token'])
        return pygit2.Keypair('git', sign_in['key'] + '.pub', sign_in['key'], '')
    def certificate_check(self, certificate, valid, host):
        return True
    def push_update_reference(self, refname, message):
        if message is not None:
            self.refused = message

callbacks = Callbacks()
if operation == 'clone':
    url, directory = arguments
    pygit2.clone_repository(url, directory, callbacks=callbacks)
else:
    repository = pygit2.Repository(arguments[0])
    origin = repository.remotes['origin']
    try:
        if operation == 'fetch':
            origin.fetch(callbacks=callbacks)
        else:
            origin.push([arguments[1]], callbacks=callbacks)
    except pygit2.GitError as error:
        # libgit2 judges a push that is no fast-forward itself.
        callbacks.refused = str(error)
    if callbacks.refused is not None:
        print(callbacks.refused)
        sys.exit(3)
`;

type SignIn = { readonly token: string } | { readonly key: string };

function pygit2({ scene }: ThirdPartyScene, signIn: SignIn): ThirdPartyClient {
  const run = async (
    operation: string,
    ...args: readonly string[]
  ): Promise<string | undefined> => {
    const order = JSON.stringify([operation, args, signIn]);
    const result = await scene.run('/usr/bin/python3', ['-c', script, order]);
    if (result.exitCode === 3) return result.stdout.trim();
    assert.equal(result.exitCode, 0, result.stderr);
    return undefined;
  };
  return {
    clone: async (url, directory) => void (await run('clone', url, directory)),
    fetch: async (directory) => assert.equal(await run('fetch', directory), undefined),
    push: (directory, refspec) => run('push', directory, refspec),
  };
}

const http: Transport = {
  name: 'HTTP',
  url: ({ server }, repository) => `${server.url}/${repository}`,
  connect: (ground) => pygit2(ground, { token: ground.token }),
  intrude: (ground) => Promise.resolve(pygit2(ground, { token: 'wrong' })),
};

const ssh: Transport = {
  name: 'SSH',
  url: ({ server }, repository) => server.sshUrl(repository),
  connect: (ground) => pygit2(ground, { key: ground.key.privateKeyFile }),
  intrude: async (ground) => {
    const stranger = await ground.scene.sshKey();
    return pygit2(ground, { key: stranger.privateKeyFile });
  },
};

defineThirdPartySuite('libgit2 (pygit2)', [http, ssh]);
