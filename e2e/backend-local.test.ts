import { createPushPipeline } from '../hooks/pipeline.js';
import { noRules } from '../hooks/testing/no-rules.js';
import { defineBackendSuite } from '../backends/conformance/backend-suite.js';
import { silentLogger } from '../backends/coordination/test-environment.js';
import { type LocalFixture, startLocal } from '../backends/local/testing/local-fixture.js';

// Here, and not beside the backend: the suite's branch rules are judged by the push pipeline of hooks/.
defineBackendSuite('local', async () => {
  const pipeline = createPushPipeline({
    ...noRules,
    logger: silentLogger,
    repositoryName: async () => undefined,
  });
  const first = await startLocal({ pipeline });
  let current: LocalFixture | undefined = first;
  return {
    backend: first.backend,
    reopen: async () => {
      await current?.stop();
      current = undefined;
      current = await startLocal({ directory: first.directory, pipeline });
      return current.backend;
    },
    dispose: async () => {
      await (current ?? first).remove();
    },
  };
});
