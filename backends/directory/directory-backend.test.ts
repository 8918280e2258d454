import { defineBackendSuite } from '../conformance/backend-suite.js';
import { startDirectory } from './directory-fixture.js';

defineBackendSuite('directory', startDirectory, { forks: false });
