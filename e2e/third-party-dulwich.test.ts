import assert from 'node:assert/strict';
import { defineThirdPartySuite } from './third-party-suite.js';
import type { ThirdPartyClient, ThirdPartyScene, Transport } from './third-party-suite.js';

/** A refused ref ends it with status 3 and the reason alone on stdout. SSH is OpenSSH's, told by the environment. */
const script = `
import json, sys
from io import BytesIO
from dulwich import porcelain
from dulwich.repo import Repo

operation, arguments, sign_in = json.loads(sys.argv[1])
noise = BytesIO()

if operation == 'clone':
    url, directory = arguments
    porcelain.clone(url, directory, errstream=noise, **sign_in).close()
elif operation == 'fetch':
    with Repo(arguments[0]) as repository:
        porcelain.fetch(repository, 'origin', errstream=noise, **sign_in)
else:
    directory, refspec = arguments
    try:
        porcelain.push(directory, 'origin', [refspec], outstream=noise, errstream=noise, **sign_in)
    except (porcelain.Error, porcelain.DivergedBranches) as error:
        print(repr(error))
        sys.exit(3)
    said = noise.getvalue().decode()
    if 'failed' in said or 'rejected' in said:
        print(said)
        sys.exit(3)
`;

function dulwich(
  { scene }: ThirdPartyScene,
  signIn: Readonly<Record<string, string>>,
  environment: () => Promise<Readonly<Record<string, string>>>,
): ThirdPartyClient {
  const run = async (
    operation: string,
    ...args: readonly string[]
  ): Promise<string | undefined> => {
    const order = JSON.stringify([operation, args, signIn]);
    const result = await scene.run('/usr/bin/python3', ['-c', script, order], {
      env: await environment(),
    });
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

const none = (): Promise<Readonly<Record<string, string>>> => Promise.resolve({});

/** dulwich 0.21 fails on every empty repository, of git's own daemon as well. */
const clonesEmpty = false;

const http: Transport = {
  clonesEmpty,
  name: 'HTTP',
  url: ({ server }, repository) => `${server.url}/${repository}`,
  connect: (ground) => dulwich(ground, { username: 'admin', password: ground.token }, none),
  intrude: (ground) =>
    Promise.resolve(dulwich(ground, { username: 'admin', password: 'wrong' }, none)),
};

const ssh: Transport = {
  clonesEmpty,
  name: 'SSH',
  url: ({ server }, repository) => server.sshUrl(repository),
  connect: (ground) => dulwich(ground, {}, () => ground.key.environment(ground.server)),
  intrude: async (ground) => {
    const stranger = await ground.scene.sshKey();
    return dulwich(ground, {}, () => stranger.environment(ground.server));
  },
};

defineThirdPartySuite('dulwich', [http, ssh]);
