package org.elasticsearch.plugins;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.function.Supplier;
import org.apache.lucene.analysis.core.KeywordTokenizer;
import org.apache.lucene.analysis.core.WhitespaceTokenizer;
import org.apache.lucene.analysis.miscellaneous.ASCIIFoldingFilter;
import org.apache.lucene.analysis.miscellaneous.TrimFilter;
import org.apache.lucene.analysis.ngram.NGramTokenizer;
import org.apache.lucene.util.Version;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.node.DiscoveryNodes;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.features.NodeFeature;
import org.elasticsearch.index.IndexSettings;
import org.elasticsearch.index.analysis.PreConfiguredTokenFilter;
import org.elasticsearch.index.analysis.PreConfiguredTokenizer;
import org.elasticsearch.index.analysis.TokenizerFactory;
import org.elasticsearch.indices.analysis.AnalysisModule.AnalysisProvider;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.rest.RestChannel;
import org.elasticsearch.rest.RestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.transport.netty4.Netty4Plugin;

/** A single node for development: {@code DevElasticsearch HOME HTTP_PORT TRANSPORT_PORT}. In this package for the
 *  package-private constructor of PluginsLoader: the node takes its one plugin from the class path. */
public final class DevElasticsearch {

    /** The transport, and what is not published as a jar: {@code GET /} and a few parts of analysis-common. */
    public static final class DevPlugin extends Netty4Plugin implements AnalysisPlugin, ActionPlugin {

        @Override
        public Collection<RestHandler> getRestHandlers(
                RestHandlersServices services, Supplier<DiscoveryNodes> nodes, Predicate<NodeFeature> features) {
            return List.of(new Root());
        }

        @Override
        public Map<String, AnalysisProvider<TokenizerFactory>> getTokenizers() {
            return Map.of(
                "ngram", DevPlugin::ngram,
                "keyword", (index, env, name, settings) -> TokenizerFactory.newFactory(name, KeywordTokenizer::new),
                "whitespace", (index, env, name, settings) -> TokenizerFactory.newFactory(name, WhitespaceTokenizer::new));
        }

        private static TokenizerFactory ngram(IndexSettings index, Environment env, String name, Settings settings) {
            int min = settings.getAsInt("min_gram", 1), max = settings.getAsInt("max_gram", 2);
            if (max - min > index.getMaxNgramDiff())
                throw new IllegalArgumentException("max_gram - min_gram must be <= " + index.getMaxNgramDiff());
            if (settings.hasValue("token_chars"))
                throw new IllegalArgumentException("token_chars: not in this development build");
            return TokenizerFactory.newFactory(name, () -> new NGramTokenizer(min, max));
        }

        @Override
        public List<PreConfiguredTokenizer> getPreConfiguredTokenizers() {
            return List.of(
                PreConfiguredTokenizer.singleton("keyword", KeywordTokenizer::new),
                PreConfiguredTokenizer.singleton("whitespace", WhitespaceTokenizer::new));
        }

        @Override
        public List<PreConfiguredTokenFilter> getPreConfiguredTokenFilters() {
            return List.of(
                PreConfiguredTokenFilter.singleton("asciifolding", true, ASCIIFoldingFilter::new),
                PreConfiguredTokenFilter.singleton("trim", true, TrimFilter::new));
        }
    }

    /** The answer by which a client knows that it talks to Elasticsearch. */
    private static final class Root implements RestHandler {
        private static final String ANSWER = """
            {"name": "dev-1", "cluster_name": "dev", "cluster_uuid": "dev", "version": {"number": "%s",
             "build_flavor": "default", "build_type": "tar", "build_hash": "%s", "build_date": "%s",
             "build_snapshot": false, "lucene_version": "%s", "minimum_wire_compatibility_version": "%s",
             "minimum_index_compatibility_version": "%s"}, "tagline": "You Know, for Search"}
            """;

        @Override
        public List<Route> routes() {
            return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
        }

        @Override
        public void handleRequest(RestRequest request, RestChannel channel, NodeClient client) {
            request.param("pretty");
            var build = Build.current();
            String body = String.format(Locale.ROOT, ANSWER, build.version(), build.hash(), build.date(), Version.LATEST,
                build.minWireCompatVersion(), build.minIndexCompatVersion());
            channel.sendResponse(new RestResponse(RestStatus.OK, "application/json", body));
        }
    }

    /** A loader that has found DevPlugin already, in place of one that looks for archives in a directory. */
    @SuppressWarnings({"rawtypes", "unchecked"})
    private static PluginsLoader onClassPath(Path noModules) throws Exception {
        var version = Build.current().version();
        var descriptor = new PluginDescriptor("transport-netty4", "dev", version, version, "21", DevPlugin.class.getName(), null,
            List.of(), false, false, false, false, PluginDescriptor.DeploymentTarget.ALL);
        var loader = DevElasticsearch.class.getClassLoader();
        var bundle = new PluginBundle(descriptor, noModules);
        var layer = Class.forName("org.elasticsearch.plugins.PluginsLoader$LoadedPluginLayer").getDeclaredConstructors()[0];
        layer.setAccessible(true);
        Object loaded = layer.newInstance(bundle, loader, ModuleLayer.boot(), loader, ModuleLayer.boot());
        return new PluginsLoader(Set.of(bundle), Set.of(), (Map) Map.of(descriptor.getName(), loaded));
    }

    private static Settings settings(Path home, String http, String transport) {
        return Settings.builder()
            .put("cluster.name", "dev").put("node.name", "dev-1").put("discovery.type", "single-node")
            .put("path.home", home).put("path.data", home.resolve("data")).put("path.logs", home.resolve("logs"))
            .put("network.host", "127.0.0.1").put("http.port", http).put("transport.port", transport)
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .put("action.destructive_requires_name", true)
            .build();
    }

    private static void close(Node node) {
        try {
            node.prepareForClose();
            node.close();
            node.awaitClose(20, TimeUnit.SECONDS);
        } catch (Exception error) {
            error.printStackTrace();
        }
    }

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]).toAbsolutePath();
        for (String directory : List.of("config", "data", "logs", "modules", "plugins"))
            Files.createDirectories(home.resolve(directory));
        Settings settings = settings(home, arguments[1], arguments[2]);
        LogConfigurator.configureESLogging();
        LogConfigurator.setNodeName("dev-1");
        LogConfigurator.configureWithoutConfig(settings);
        var environment = InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), home.resolve("config"), () -> "dev-1");
        var node = new Node(environment, onClassPath(home.resolve("modules")));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node)));
        node.start();
        new CountDownLatch(1).await();
    }
}
