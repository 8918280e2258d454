import { defineFrontEndSuite } from '../backends/conformance/front-end-suite.js';

defineFrontEndSuite('local', (scene) => scene.startServer());
